"""Checks of chapter 1's exercises: cutting a text into blocks, and exact search in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from . import exercise

BLOCK = 64
"""The most vectors of passages that may be read at a time."""


class InBlocks:
    """Vectors [N, d] of which at most 64 can be read at a time."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self.shape = vectors.shape

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: Any) -> np.ndarray:
        found = self.vectors[rows]
        if found.ndim == 2 and len(found) > BLOCK:
            self._refuse()
        return found

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self._refuse()

    @property
    def T(self) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise AssertionError(
            f"at most {BLOCK} of the {len(self)} vectors may be read at a time: "
            f"read vectors[first : first + {BLOCK}]"
        )


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
    nearest: Callable[[np.ndarray, Any, int], tuple[np.ndarray, np.ndarray]],
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
    drawn = np.random.default_rng(0)
    many = drawn.integers(-2, 3, size=(200, 3)).astype(np.float32)
    many[198] = [
        3,
        3,
        0,
    ]  # in the last block, and the best for the first question
    queries = np.array([[1, 2, 0], [0, -1, 1]], dtype=np.float32)
    scores, positions = nearest(queries, InBlocks(many), 9)
    wanted = np.argsort(-(queries @ many.T), axis=1, kind="stable")[:, :9]
    assert np.array_equal(
        scores, np.take_along_axis(queries @ many.T, wanted, axis=1)
    ), (
        f"among 200 passages, read in blocks of {BLOCK}, others have larger inner "
        "products than yours; keep the best so far, and read the last, shorter block"
    )
    assert np.array_equal(positions, wanted), (
        "the scores are right, and other passages have the same ones: positions count "
        "from the first passage of the corpus, and of equal scores the first comes "
        "first, so the best so far go in front of the new block"
    )
