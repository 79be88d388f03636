"""Checks of chapter 4's exercises: two passages with the answer, strings, and a joint step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ragbook.methods import realm

from . import exercise


@exercise
def ascent(climb: Callable[[Tensor, Tensor, int, float], Tensor]) -> None:
    """`climb(scores, given, steps, rate)` gives p(z | x) [k] after that many steps."""
    start = torch.tensor([0.2, 0.1, 0.4, 0.3]).log()
    given = torch.tensor([0.6, 0.6, 0.01, 0.01])
    still = climb(start, given, 0, 1.0)
    assert still.shape == (4,), (
        f"one probability for each passage: [4], and not {list(still.shape)}"
    )
    assert torch.allclose(still, start.exp(), atol=1e-5), (
        "before the first step p(z | x) is the softmax of the scores"
    )
    for steps in (1, 5, 200):
        found, wanted = (
            climb(start, given, steps, 0.5),
            _climbed(start, given, steps, 0.5),
        )
        assert found[2:].sum() < 0.7, (
            "the passages without the answer gain: the likelihood is to rise, so the "
            "scores move along the gradient and not against it"
        )
        assert steps == 1 or not torch.allclose(
            found, _climbed(start, given, 1, 0.5 * steps), atol=1e-4
        ), "p(z | x) changes with every step, and so does the gradient"
        assert torch.allclose(found, wanted, atol=1e-4), (
            f"after {steps} steps of size 0.5 the four have {_rounded(wanted)}, and "
            f"yours {_rounded(found)}; the gradient of log p(y | x) is posterior "
            "minus prior"
        )


def _climbed(start: Tensor, given: Tensor, steps: int, rate: float) -> Tensor:
    """The same by autograd."""
    scores = start.clone()
    for _ in range(steps):
        scores.requires_grad_()
        log_p = realm.marginal_log_prob(
            given.log()[None], scores.log_softmax(-1)[None]
        )
        (gradient,) = torch.autograd.grad(log_p.sum(), scores)
        scores = (scores + rate * gradient).detach()
    return scores.softmax(-1)


@exercise
def string_probs(
    collect: Callable[
        [list[int], list[list[float]]], Mapping[tuple[int, ...], float]
    ],
) -> None:
    """`collect(tokens, probs)` gives p(y | z, x) of every string of the passage."""
    tokens = [7, 8, 7]
    probs = [[0.1, 0.2], [0.3, 0.1], [0.3, 0.0]]
    found = dict(collect(tokens, probs))
    assert (7,) in found, (
        "the keys are tuples of token ids, (7,) for the first token alone"
    )
    assert math.isclose(found[7,], 0.4, abs_tol=1e-6), (
        "7 occurs twice, with the probabilities 0.1 and 0.3, so p(y | z, x) is 0.4; "
        f"you have {found[7,]:g}"
    )
    assert math.isclose(found.get((7, 8), 0.0), 0.2, abs_tol=1e-6), (
        "probs[i][w] belongs to the tokens from i to i + w, both included: "
        "(7, 8) has 0.2"
    )
    assert set(found) == {(7,), (8,), (7, 8), (8, 7)}, (
        "three tokens have the strings (7,), (8,), (7, 8) and (8, 7), and no span "
        f"ends after the last token; you have {sorted(found)}"
    )
    assert math.isclose(sum(found.values()), 1.0, abs_tol=1e-6), (
        "these spans' probabilities sum to 1, and so must those of the strings"
    )


@exercise
def joint_step(toy: Callable[[], tuple[float, float, float]]) -> None:
    """`toy()` gives p(z | x) of the right passage, and p(y | z, x) with it and with the wrong one."""
    numbers = tuple(float(one) for one in toy())
    assert len(numbers) == 3, (
        "three numbers: a prior and two probabilities of y"
    )
    assert all(0 < one < 1 for one in numbers), (
        f"each is a probability, above 0 and below 1; you chose {numbers}"
    )
    prior, right, wrong = numbers
    assert right > wrong, (
        "y is to be more probable with the right passage than with the wrong one, "
        f"and not {right:g} against {wrong:g}"
    )
    scores = torch.tensor([prior, 1 - prior], dtype=torch.float64).log()
    reader = torch.tensor([right, wrong], dtype=torch.float64).logit()
    scores.requires_grad_()
    reader.requires_grad_()

    def log_joint() -> Tensor:
        return scores.log_softmax(-1) + torch.nn.functional.logsigmoid(reader)

    before = log_joint()
    gradients = torch.autograd.grad(before.logsumexp(-1), (scores, reader))
    with torch.no_grad():
        for parameter, gradient in zip(
            (scores, reader), gradients, strict=True
        ):
            parameter += gradient
        after = log_joint()
    assert after.logsumexp(-1) > before.logsumexp(-1), (
        "the step is too long for these numbers: p(y | x) falls"
    )
    was, becomes = (each.softmax(-1)[0].item() for each in (before, after))
    assert becomes < was, (
        f"the posterior of the right passage rises from {was:.3f} to {becomes:.3f}; "
        "how much of the reader's gradient does each passage get?"
    )


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]
