"""The checks of chapter 9's exercises pass what is right and refuse plausible mistakes."""

import numpy as np
import pytest
from exercises import scale as check


def encode(vectors, values, distance=lambda difference: (difference**2).sum(-1)):
    m, _, width = values.shape
    return distance(vectors.reshape(len(vectors), m, 1, width) - values).argmin(-1)


def decode(codes, values):
    return values[np.arange(len(values)), codes].reshape(len(codes), -1)


def largest_product(vectors, values):
    m, _, width = values.shape
    return (vectors.reshape(len(vectors), m, 1, width) * values).sum(-1).argmax(-1)


def one_codebook(vectors, values):
    return encode(vectors, np.stack([values[0]] * len(values)))


def decode_with_one(codes, values):
    return values[0][codes].reshape(len(codes), -1)


def pieces_apart(codes, values):
    return values[np.arange(len(values)), codes]  # not joined to vectors


def merge(found, k):
    scores, positions = (np.concatenate([f[i] for f in found], axis=1) for i in (0, 1))
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def lowest(found, k):
    scores, positions = merge([(-s, p) for s, p in found], k)
    return -scores, positions


def ties_by_part(found, k):
    scores, positions = (np.concatenate([f[i] for f in found], axis=1) for i in (0, 1))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def all_of_them(found, k):
    return merge(found, 2 * k)


def unwritten(*_):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("checked", "answer"),
    [
        (check.cells, lambda n, probes: (n * probes) ** 0.5),
        (check.product_code, (encode, decode)),
        (check.merge, merge),
    ],
)
def test_right(checked, answer, capsys):
    checked(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("checked", "answer", "hint"),
    [
        (check.cells, lambda n, probes: n**0.5, "4,000 cells"),
        (check.cells, lambda n, probes: 4 * n**0.5, "one probe"),
        (check.product_code, (largest_product, decode), "L2 distance"),
        (check.product_code, (one_codebook, decode), "piece 1"),
        (check.product_code, (encode, decode_with_one), "values[j]"),
        (check.product_code, (encode, pieces_apart), "four numbers"),
        (check.merge, lowest, "highest scores"),
        (check.merge, ties_by_part, "smaller position"),
        (check.merge, all_of_them, "k columns"),
    ],
)
def test_wrong(checked, answer, hint, capsys):
    checked(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not right yet: ")
    assert hint in said


@pytest.mark.parametrize(
    ("checked", "answer"),
    [
        (check.cells, unwritten),
        (check.product_code, (unwritten, unwritten)),
        (check.merge, unwritten),
    ],
)
def test_unwritten(checked, answer, capsys):
    checked(answer)
    assert capsys.readouterr().out == "Not written yet.\n"
