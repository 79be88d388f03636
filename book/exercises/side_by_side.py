"""The exercises of chapter 7: agreement, Holm's correction, calibration error and a vote."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from . import exercise


@exercise
def kappa(answer: Callable[[Sequence[bool], Sequence[bool]], float]) -> None:
    """Computes Cohen's kappa, first of methods that are right on 10 and 15 of 20 questions."""
    found = answer(
        [True] * 10 + [False] * 10,
        [True] * 9 + [False] + [True] * 6 + [False] * 4,
    )
    assert not math.isclose(found, 0.65), (
        "13 of 20 is the share of agreement; chance is still to be taken out"
    )
    assert not math.isclose(found, 0.15), (
        "the difference from chance is right; divide it by what chance leaves, 1 - p_e"
    )
    assert math.isclose(found, 0.3), (
        "both are right or both wrong on 13 of 20 questions, and p_e = 0.5 * 0.75 + 0.5 * 0.25 = "
        "0.5: kappa is (0.65 - 0.5) / (1 - 0.5) = 0.3"
    )
    found = answer(
        [True] * 190 + [False] * 10,
        [True] * 181 + [False] * 9 + [True] * 9 + [False],
    )
    assert math.isclose(found, 0.005 / 0.095, rel_tol=1e-6), (
        "two methods that are right on 190 of 200 questions and agree on 182 have kappa 0.053"
    )


@exercise
def holm(answer: Callable[[Sequence[float]], Sequence[float]]) -> None:
    """Adjusts p-values by Holm's method; 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06."""
    found = np.asarray(answer([0.01, 0.04, 0.03]), float)
    assert found.shape == (3,), "one adjusted value for each p-value"
    assert not np.allclose(found, [0.03, 0.12, 0.09]), (
        "that is Bonferroni's correction: only the smallest is multiplied by the number of tests"
    )
    assert not np.allclose(found, [0.03, 0.04, 0.06]), (
        "no value may be below the one before it in the order of size: 0.04 becomes 0.06, too"
    )
    assert np.allclose(found, [0.03, 0.06, 0.06]), (
        "in the order of size 0.01 is multiplied by 3, 0.03 by 2 and 0.04 by 1, and the results "
        "come in the order of the input: 0.03, 0.06, 0.06"
    )
    assert np.allclose(answer([0.7, 0.6, 0.001]), [1, 1, 0.003]), (
        "no probability is above 1"
    )


@exercise
def calibration_error(
    answer: Callable[[np.ndarray, np.ndarray, int], float],
) -> None:
    """Averages the distances from the diagonal; the groups have 2, 2 and 1 of five answers."""
    probability = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    right = np.array([True, False, True, False, True])
    found = answer(probability, right, 3)
    wanted = (2 * 0.2 + 2 * 0.4 + 1 * 0.1) / 5
    assert not math.isclose(found, (0.2 + 0.4 + 0.1) / 3), (
        "the distances are right; weight them by the groups' sizes, 2, 2 and 1"
    )
    assert math.isclose(found, wanted, rel_tol=1e-6), (
        "sorted, the groups are (0.1, 0.3), (0.5, 0.7) and (0.9); the distances of their means "
        f"from the shares 0, 1 and 1 are 0.2, 0.4 and 0.1, and the error is {wanted:.2f}"
    )


@exercise
def vote(answer: Callable[[Sequence[str]], str]) -> None:
    """Gives the most frequent answer, and of several the first."""
    assert answer(["Paris", "Rome", "Rome", "Oslo"]) == "Rome", (
        "two of the four say Rome"
    )
    assert answer(["Oslo", "Rome", "Rome", "Oslo"]) == "Oslo", (
        "Oslo and Rome have two votes each, and Oslo comes first"
    )
    assert answer(["Amazon", "the Nile", "Nile.", "Volga"]) == "the Nile", (
        "the Nile and Nile. are one answer after normalize_answer; give the first text as it is"
    )
