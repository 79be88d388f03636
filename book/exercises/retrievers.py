"""Checks of chapter 2's exercises: BM25, the gradient of DPR's loss, and rank fusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import exercise


@exercise
def bm25(score: Callable[[int, int, int, float, float], float]) -> None:
    """`score(f, n, N, length, mean_length)` is one word's part of the score."""
    assert math.isclose(score(0, 1, 3, 4, 3), 0, abs_tol=1e-9), (
        "a word that does not occur in the passage adds nothing"
    )
    found = score(1, 1, 3, 3, 3)
    assert math.isclose(found, 0.4458, abs_tol=1e-3), (
        "one occurrence in a passage of mean length: idf = ln(1 + 2.5 / 1.5) = "
        f"0.981, times 1 / 2.2, is 0.446; you returned {found:.3f}"
    )
    assert math.isclose(score(1, 3, 3, 3, 3), 0.0607, abs_tol=1e-3), (
        "a word that all three passages contain has the idf ln(1 + 0.5 / 3.5), "
        "which is still above zero"
    )
    found = score(2, 2, 3, 4, 3)
    assert math.isclose(found, 0.2686, abs_tol=1e-3), (
        "two occurrences in a passage of four words, three on average: 0.470 times "
        f"2 / (2 + 1.2 * 1.25), which is 0.269; you returned {found:.3f}"
    )


@exercise
def gradient(of_scores: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """`of_scores(scores, g)` is the gradient [P] of the cross-entropy."""
    import torch

    from ragbook.training.contrastive import cross_entropy

    for row, g in (([0.5, 2.0, 1.8], 1), ([4.0, 1.0, 0.0], 0)):
        scores = torch.tensor([row], dtype=torch.float64, requires_grad=True)
        negatives = torch.ones(1, 3, dtype=torch.bool)
        negatives[0, g] = False
        cross_entropy(scores, torch.tensor([g]), negatives).backward()
        assert scores.grad is not None
        expected = scores.grad[0].numpy()
        found = np.asarray(of_scores(np.array(row), g))
        assert found.shape == (3,), "the gradient has an entry for each score"
        assert abs(found.sum()) < 1e-6, (
            "the gradient sums to zero: what the right passage gains, the others "
            f"lose; yours sums to {found.sum():.3f}"
        )
        assert found[g] < 0, (
            "raising the right passage's score lowers the loss, so that entry is "
            "below zero"
        )
        assert np.allclose(found, expected, atol=1e-6), (
            f"for the scores {row} and g = {g} the gradient is "
            f"{expected.round(3).tolist()}, not {found.round(3).tolist()}"
        )
    with np.errstate(all="ignore"):
        large = np.asarray(of_scores(np.array([900.0, 899.0]), 1))
    assert np.allclose(large, [0.7311, -0.7311], atol=1e-3), (
        "exp(900) is infinite in floating point; subtract the largest score first"
    )


@exercise
def fusion(
    fuse: Callable[[Sequence[Sequence[str]]], Mapping[str, float]],
) -> None:
    """`fuse(rankings)` gives each id its sum of reciprocal ranks."""
    found = fuse([["a", "b", "c"], ["c", "b", "d"]])
    assert set(found) == set("abcd"), (
        "every passage that some ranking contains has a score; yours are "
        f"{sorted(found)}"
    )
    assert math.isclose(found["a"], 1 / 61, abs_tol=1e-7), (
        "a is first in one ranking and missing in the other, so its score is "
        f"1 / (60 + 1) = {1 / 61:.5f}; you returned {found['a']:.5f}"
    )
    assert math.isclose(found["b"], 2 / 62, abs_tol=1e-7), (
        "b is second in both rankings: 1 / 62 + 1 / 62"
    )
    assert max(found, key=lambda name: found[name]) == "c", (
        "c is third in one ranking and first in the other: 1 / 63 + 1 / 61, a "
        "little more than b"
    )
