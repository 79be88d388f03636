"""The exercises of chapter 8: following, collateral damage, silence after a deletion, and votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import exercise

Texts = Sequence[str]
Accepted = Sequence[Sequence[str]]


@exercise
def follows(
    answer: Callable[[Texts, Texts, Accepted, Accepted], float],
) -> None:
    """Counts the questions answered correctly with both editions: 1 of 5."""
    then = ["Benedict XVI", "the rand", "one", "Oslo", "Ghent"]
    now = ["francis.", "Oslo", "no spacecraft", "Oslo", "Lyon"]
    earlier = [
        ["Benedict XVI", "Benedict"],
        ["rand"],
        ["two"],
        ["Bergen"],
        ["Lyon"],
    ]
    current = [
        ["Francis"],
        ["euro"],
        ["none", "no spacecraft"],
        ["Bergen"],
        ["Rome"],
    ]
    found = answer(then, now, earlier, current)
    assert abs(found - 0.4 * 0.4) > 1e-9, (
        "the product of two means counts questions that are right with only one of the indexes; "
        "both must be right for the same question"
    )
    assert abs(found - 1 / 5) < 1e-9, (
        "of the five questions only the first is right with both: use exact match, which ignores "
        "case, punctuation and articles, with every accepted answer"
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
def votes(answer: Callable[[Tensor, Tensor], tuple[int, int]]) -> None:
    """Tells the answer of a sum over passages from that of the best passage."""
    prior = torch.tensor([0.4, 0.3, 0.3])
    two_agree = torch.tensor([[0.1, 0.8], [0.7, 0.1], [0.7, 0.1]])
    found = tuple(int(at) for at in answer(prior, two_agree))
    assert found == (0, 1), (
        "the sums are 0.46 for the first answer and 0.38 for the second, while the passage with "
        "the greatest prior gives the second: (0, 1)"
    )
    sure = torch.tensor([0.8, 0.1, 0.1])
    outvoted = torch.tensor([[0.1, 0.6], [0.9, 0.0], [0.9, 0.0]])
    found = tuple(int(at) for at in answer(sure, outvoted))
    assert found == (1, 1), (
        "weight each passage by its prior: 0.48 for the second answer and 0.26 for the first"
    )
    unused = torch.tensor([[0.3, 0.2], [0.0, 0.9], [0.0, 0.0]])
    found = tuple(int(at) for at in answer(prior, unused))
    assert found == (1, 0), (
        "the best passage is the one with the greatest prior, not the greatest likelihood"
    )
