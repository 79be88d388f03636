"""Checks of chapter 9's exercises: cells of an inverted file, product codes, and merging parts."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ragbook.index.parts import best

from . import exercise

Array = np.ndarray
Found = tuple[Array, Array]


@exercise
def cells(count: Callable[[int, int], float]) -> None:
    """`count(n, probes)` gives the number of cells with the fewest comparisons."""
    found = count(1_000_000, 16)
    assert math.isclose(found, 4000, rel_tol=1e-3), (
        "a million vectors and 16 probes need 4,000 cells: 4,000 centroids and "
        f"16 lists of 250 vectors are 8,000 comparisons; you returned {found}"
    )
    assert math.isclose(count(90_000, 1), 300, rel_tol=1e-3), (
        "with one probe the number of cells is the square root of n"
    )


@exercise
def product_code(
    functions: tuple[
        Callable[[Array, Array], Array], Callable[[Array, Array], Array]
    ],
) -> None:
    """`encode(vectors, values)` gives codes [B, m], `decode(codes, values)` vectors [B, d]."""
    encode, decode = functions
    values = np.array(
        [[[1, 0], [0, 1], [0, 0]], [[0, 2], [3, 3], [-1, 0]]], dtype=np.float32
    )  # [m = 2, 3 values, d / m = 2]
    vectors = np.array([[0.9, 0.2, 0, 1.5], [0.1, 0.1, -2, 0]], np.float32)
    codes = np.asarray(encode(vectors, values))
    assert codes.shape == (2, 2), (
        f"two vectors of two pieces have codes of shape (2, 2), not {codes.shape}"
    )
    assert np.array_equal(codes, [[0, 0], [2, 2]]), (
        "the nearest values of (0.9, 0.2 | 0, 1.5) are number 0 of piece 0 and "
        "number 0 of piece 1, those of (0.1, 0.1 | -2, 0) numbers 2 and 2, by L2 "
        f"distance; you returned {codes.tolist()}"
    )
    decoded = np.asarray(decode(np.array([[0, 1], [2, 0]]), values))
    assert decoded.shape == (2, 4), (
        f"two codes represent two vectors of four numbers, not {decoded.shape}"
    )
    assert np.allclose(decoded, [[1, 0, 3, 3], [0, 0, 0, 2]]), (
        "piece j is looked up in values[j]: the code (0, 1) represents "
        f"(1, 0, 3, 3); you returned {decoded[0].tolist()}"
    )


@exercise
def merge(merged: Callable[[list[Found], int], Found]) -> None:
    """`merged(found, k)` gives scores and positions of the k best, as `ragbook.index.parts.best`."""
    found = [
        (
            np.array([[0.9, 0.5], [0.4, 0.3]], dtype=np.float32),
            np.array([[5, 4], [7, 6]]),
        ),
        (
            np.array([[0.9, 0.8], [0.2, 0.1]], dtype=np.float32),
            np.array([[2, 3], [0, 1]]),
        ),
    ]
    scores, positions = merged(found, 2)
    assert np.shape(scores) == np.shape(positions) == (2, 2), (
        "both results have a row for each question and k columns"
    )
    assert np.allclose(scores, [[0.9, 0.9], [0.4, 0.3]]), (
        "the highest scores of all parts come first: 0.9 and 0.9 for the first "
        f"question; you returned {np.asarray(scores)[0].tolist()}"
    )
    expected = best(found, 2)[1]
    assert np.array_equal(positions, expected), (
        "of equal scores the smaller position comes first: "
        f"{expected[0].tolist()} for the first question; you returned "
        f"{np.asarray(positions)[0].tolist()}"
    )
