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


def best(scores, positions, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def search(queries, vectors, k, size=64, shift=True, behind=True, whole=0):
    scores = np.empty((len(queries), 0))
    positions = np.empty((len(queries), 0), dtype=int)
    for first in range(0, len(vectors) - whole, size):
        new = queries @ vectors[first : first + size].T
        at = np.tile(np.arange(new.shape[1]) + shift * first, (len(queries), 1))
        joined = [(scores, new), (positions, at)]
        both = (np.concatenate(pair if behind else pair[::-1], 1) for pair in joined)
        scores, positions = best(*both, k)
    return scores, positions


def all_at_once(queries, vectors, k):
    scores = queries @ vectors.T
    return best(scores, np.tile(np.arange(len(vectors)), (len(queries), 1)), k)


def as_one_array(queries, vectors, k):
    return all_at_once(queries, np.asarray(vectors), k)


def in_larger_blocks(queries, vectors, k):
    return search(queries, vectors, k, size=100)


def positions_within_the_block(queries, vectors, k):
    return search(queries, vectors, k, shift=False)


def new_block_in_front(queries, vectors, k):
    return search(queries, vectors, k, behind=False)


def without_the_last_block(queries, vectors, k):
    return search(queries, vectors, k, whole=len(vectors) % 64 if len(vectors) > 64 else 0)


def last_block_only(queries, vectors, k):
    first = (len(vectors) - 1) // 64 * 64
    scores, positions = all_at_once(queries, vectors[first : first + 64], k)
    return scores, positions + first


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
        (check.search, all_at_once),
        (check.search, as_one_array),
        (check.search, in_larger_blocks),
        (check.search, positions_within_the_block),
        (check.search, new_block_in_front),
        (check.search, without_the_last_block),
        (check.search, last_block_only),
    ],
)
def test_a_mistake_is_refused_with_a_hint(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out.startswith("Not right yet: ")


def test_all_vectors_at_once_are_refused_for_that(capsys):
    for answer in (all_at_once, as_one_array, in_larger_blocks):
        check.search(answer)
        assert "at most 64 of the 200 vectors" in capsys.readouterr().out


@pytest.mark.parametrize("verdict", [check.blocks, check.search])
def test_the_unwritten_one_is_not_right(verdict, capsys):
    verdict(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"
