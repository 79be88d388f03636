"""The exercises of chapter 6: fusing, shares of attention, cost, and the gradient of distillation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ragbook.methods import fid
from ragbook.training import distil

from . import exercise


@exercise
def pack(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Fuses the states of one question's passages, as `ragbook.methods.fid.pack` does."""
    states = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    wanted, _, owner = fid.pack(states[None], mask[None])
    fused, owners = answer(states, mask)
    assert fused.shape == (7, 2), (
        "7 tokens are real, of width 2: the states are to be [7, 2]; leave the padding out"
    )
    assert torch.equal(fused, wanted[0]), (
        "the states are not those of the real tokens, in the order of passages and tokens"
    )
    assert owners.tolist() == owner[0].tolist(), (
        "two tokens are the first passage's (0), four the second's (1), one the third's (2)"
    )


@exercise
def shares(answer: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """Sums one softmax over all tokens for each passage; the exponentials are 2, 1 and 4."""
    scores = torch.tensor([2.0, 1, 4]).log()
    found = answer(scores, torch.tensor([0, 0, 1]), 2)
    assert found.shape == (2,), "one share for each of the two passages"
    assert torch.allclose(found.sum(), torch.tensor(1.0)), "the shares sum to 1"
    assert torch.allclose(found, torch.tensor([3.0, 4]) / 7), (
        "the exponentials of the scores are 2 and 1 for the first passage and 4 for the second: "
        "its share is 4/7"
    )
    none = answer(scores, torch.tensor([0, 0, 2]), 3)
    assert none[1] == 0, "a passage without tokens gets no attention"


@exercise
def crossover(answer: Callable[[int, int], int]) -> None:
    """Finds the smallest k whose attention costs more than the matrices of an encoder layer."""
    for length, width in (
        (150, 384),
        (250, 768),
        (100, 100),
        (96, 64),
        (1000, 64),
    ):
        wanted = next(
            k
            for k in range(1, 1000)
            if 2 * (k * length) ** 2 * width > 12 * k * length * width**2
        )
        found = answer(length, width)
        assert found == wanted, (
            f"with L = {length} and d = {width} it is k = {wanted} and not {found}; "
            "compare 2 (k L)^2 d with 12 k L d^2, and mind that it must be greater, not equal"
        )


@exercise
def gradient(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Gives the gradient of the divergence, as autograd finds it."""
    seeded = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, generator=seeded, requires_grad=True)
    targets = torch.randn(2, 3, generator=seeded)
    (wanted,) = torch.autograd.grad(distil.divergence(scores, targets), scores)
    found = answer(scores.detach(), targets)
    assert found.shape == (2, 3), "one number for each score: [2, 3]"
    assert not torch.allclose(found, -wanted, atol=1e-6), (
        "the sign is the other one: descent must raise a score whose target is greater"
    )
    assert not torch.allclose(found, 2 * wanted, atol=1e-6), (
        "the divergence is averaged over the questions: divide by B"
    )
    assert torch.allclose(found, wanted, atol=1e-6), (
        "autograd finds something else; take the softmax of each row of both"
    )
