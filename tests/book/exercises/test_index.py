"""The checks of chapter 1's exercises pass what is right and refuse plausible mistakes."""

import numpy as np
import pytest
from exercises import index as check


def blocks(text, size):
    words = text.split()
    return [" ".join(words[at : at + size]) for at in range(0, len(words), size)]


def without_the_rest(text, size):
    words = text.split()
    return [" ".join(words[at : at + size]) for at in range(0, len(words) - size + 1, size)]


def overlapping(text, size):
    words = text.split()
    return [" ".join(words[at : at + size]) for at in range(len(words) - size + 1)]


def with_an_empty_one(text, size):
    words = text.split()
    return [" ".join(words[at : at + size]) for at in range(0, len(words) + 1, size)]


def of_characters(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


def search(queries, vectors, k):
    scores = queries @ vectors.T
    positions = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, positions, 1), positions


def smallest_first(queries, vectors, k):
    scores, positions = search(-queries, vectors, k)
    return -scores, positions


def ties_reversed(queries, vectors, k):
    scores = queries @ vectors.T
    positions = np.argsort(scores, axis=1, kind="stable")[:, ::-1][:, :k]
    return np.take_along_axis(scores, positions, 1), positions


def by_distance(queries, vectors, k):
    scores, positions = search(queries, vectors, k)
    return 2 - 2 * scores, positions


def all_of_them(queries, vectors, k):
    return search(queries, vectors, len(vectors))


def unwritten(*_):
    raise NotImplementedError


@pytest.mark.parametrize(("verdict", "answer"), [(check.blocks, blocks), (check.search, search)])
def test_what_is_right_passes(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (check.blocks, without_the_rest),
        (check.blocks, overlapping),
        (check.blocks, with_an_empty_one),
        (check.blocks, of_characters),
        (check.search, smallest_first),
        (check.search, ties_reversed),
        (check.search, by_distance),
        (check.search, all_of_them),
    ],
)
def test_a_mistake_is_refused_with_a_hint(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize("verdict", [check.blocks, check.search])
def test_the_unwritten_one_is_not_right(verdict, capsys):
    verdict(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"
