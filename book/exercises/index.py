"""Checks of chapter 1's exercises: cutting a text into blocks, and exact search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import exercise


@exercise
def blocks(cut: Callable[[str, int], list[str]]) -> None:
    """`cut(text, size)` gives disjoint blocks of `size` words, the last one maybe shorter."""
    found = list(cut("a b c d e f g", 3))
    assert " ".join(found).split() == list("abcdefg"), (
        "seven words in blocks of three must give back the seven words, each "
        f"once and in order; you returned {found}"
    )
    assert [len(block.split()) for block in found] == [3, 3, 1], (
        "only the last block may be shorter than `size` words"
    )
    assert len(list(cut("a b c d", 2))) == 2, (
        "four words in blocks of two are two blocks, with no empty one at the end"
    )


@exercise
def search(
    nearest: Callable[
        [np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]
    ],
) -> None:
    """`nearest(queries, vectors, k)` gives scores and positions, both [B, k]."""
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    queries = np.array([[0.6, 0.8], [1, 0]], dtype=np.float32)
    scores, positions = nearest(queries, vectors, 2)
    assert np.shape(scores) == np.shape(positions) == (2, 2), (
        "both results have a row for each question and k columns"
    )
    assert np.array_equal(positions, [[1, 2], [0, 1]]), (
        "the largest inner product comes first: for the question (0.6, 0.8) the "
        f"positions are 1, 2; you returned {np.asarray(positions)[0].tolist()}"
    )
    assert np.allclose(scores, [[0.96, 0.8], [1, 0.8]]), (
        "the scores are the inner products of the positions returned"
    )
    twins = np.array([[1, 0], [0, 1], [1, 0]], dtype=np.float32)
    _, positions = nearest(queries[1:], twins, 2)
    assert np.array_equal(positions, [[0, 2]]), (
        "of passages with equal scores, the first in the corpus comes first"
    )
