"""The exercises of chapter 8: following, collateral damage, silence after a deletion, and what a
false passage needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import exercise

Texts = Sequence[str]
Accepted = Sequence[Sequence[str]]


@exercise
def outcomes(
    answer: Callable[
        [Texts, Texts, Accepted, Accepted], tuple[int, int, int, int]
    ],
) -> None:
    """Counts the questions followed, stale, ahead and the rest: 1, 1, 1 and 3 of 6."""
    then = ["Benedict XVI", "the rand", "none", "Oslo", "Ghent", "Rome"]
    now = ["francis.", "Rand", "No spacecraft", "Bergen", "Kyiv", "Rome"]
    earlier = [
        ["Benedict XVI", "Benedict"],
        ["rand"],
        ["one"],
        ["Bergen"],
        ["Ghent"],
        ["Turin"],
    ]
    current = [
        ["Francis"],
        ["euro"],
        ["none", "no spacecraft"],
        ["Oslo"],
        ["Lyon"],
        ["Milan"],
    ]
    found = tuple(answer(then, now, earlier, current))
    assert sum(found) == 6, "every question is counted once: the sum is 6"
    assert found[0] == 1, (
        "only the first question is followed: right in 2012's edition with the index of 2012, and "
        "in 2022's with that of 2022; the fourth has them the other way round"
    )
    assert found == (1, 1, 1, 3), (
        "the second question is stale and the third ahead; compare with every accepted answer by "
        "exact match, which ignores case, punctuation and articles, and not the two answers with "
        "each other"
    )


@exercise
def moves(
    answer: Callable[[Texts, Texts, Accepted], tuple[int, int, int]],
) -> None:
    """Counts answers that moved, and those that became right and wrong."""
    before = ["The Elbe", "Rome", "Lima", "Oslo", "Bern"]
    after = ["Elbe", "Paris", "Quito", "Bergen", "Bern"]
    accepted = [["Elbe"], ["Paris"], ["Lima"], ["Turku"], ["Graz"]]
    found = tuple(answer(before, after, accepted))
    assert found[0] != 4, (
        '"The Elbe" and "Elbe" are the same answer: normalise before you compare'
    )
    assert found == (3, 1, 1), (
        "the second answer became right, the third wrong, and the fourth moved from one wrong "
        "answer to another: (3, 1, 1)"
    )


@exercise
def silenced(
    answer: Callable[[Sequence[float], Sequence[bool], Sequence[float]], float],
) -> None:
    """Finds the share of later answers under a threshold that nine in ten right answers pass."""
    sure = [at / 10 for at in range(1, 11)]  # of ten right answers
    before = [*sure, 0.01, 0.02]
    right = [True] * 10 + [False] * 2
    found = answer(before, right, [0.05, 0.15, 0.2, 0.9])
    assert found != 0.0, (
        "only right answers count for the threshold, and one in ten of them may fall below it"
    )
    assert found == 0.5, (
        "the right answers have the probabilities 0.1, 0.2, ..., 1.0; the threshold that nine "
        "pass is 0.2, and 0.05 and 0.15 are below it: a half"
    )


@exercise
def share(answer: Callable[[Tensor, Tensor, Tensor], float]) -> None:
    """Finds the prior with which a false passage makes both answers equally probable."""
    prior = torch.tensor([0.5, 0.5])
    likelihood = torch.tensor([[0.6, 0.2], [0.4, 0.0]])  # the true answer leads
    found = float(answer(prior, likelihood, torch.tensor([0.1, 0.7])))
    assert not math.isclose(found, 0.4 / 0.6, abs_tol=1e-5), (
        "the other passages keep only 1 - q of the prior: (1 - q) 0.4 = q 0.6"
    )
    assert math.isclose(found, 0.4, abs_tol=1e-5), (
        "the true answer leads by 0.4 in the others and the false one by 0.6 in the false passage, "
        f"so q = 0.4 / (0.4 + 0.6); you returned {found:g}"
    )
    unequal = torch.tensor([0.9, 0.1])
    found = float(answer(unequal, likelihood, torch.tensor([0.0, 0.4])))
    assert math.isclose(found, 0.5, abs_tol=1e-5), (
        "weight each passage by its prior, 0.9 and 0.1: the true answer leads by 0.4, and q is 0.5; "
        f"you returned {found:g}"
    )
    one_knows = torch.tensor([[0.8, 0.0], [0.0, 0.0]])
    found = float(answer(unequal, one_knows, torch.tensor([0.0, 0.8])))
    assert math.isclose(found, 0.72 / 1.52, abs_tol=1e-5), (
        "where only the first of the two knows the answer, it leads by 0.9 * 0.8 = 0.72; "
        f"you returned {found:g}"
    )
