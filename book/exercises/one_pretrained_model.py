"""Checks of chapter 11's exercises: fused caches, the layouts of passages, and moved keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import exercise


@exercise
def fused(
    attend: Callable[[Tensor, list[tuple[Tensor, Tensor]]], Tensor],
) -> None:
    """`attend(query, passages)` is the output [d] of one query over all passages' tokens."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(4, generator=generator)
    passages = [
        (
            torch.randn(length, 4, generator=generator),
            torch.randn(length, 4, generator=generator),
        )
        for length in (3, 1, 5)
    ]
    found = torch.as_tensor(attend(query, passages))
    assert found.shape == (4,), (
        f"one query has one output of shape (4,), not {tuple(found.shape)}"
    )
    keys = torch.cat([keys for keys, _ in passages])
    values = torch.cat([values for _, values in passages])
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[None, None], keys[None], values[None]
    )[0, 0]
    weights = torch.softmax(keys @ query, 0)
    assert not torch.allclose(found, weights @ values, atol=1e-5), (
        "the scores are divided by the square root of d before the softmax"
    )
    assert torch.allclose(found, expected, atol=1e-5), (
        "one softmax goes over the nine tokens of all three passages, so that a "
        "passage whose keys fit the query better weighs more; passages of "
        "different lengths are not averaged"
    )
    assert torch.allclose(
        torch.as_tensor(attend(query, passages[::-1])), expected, atol=1e-5
    ), "the order of the passages does not matter"


@exercise
def layout(
    places: Callable[[Sequence[int], bool], tuple[Tensor, Tensor]],
) -> None:
    """`places(lengths, apart)` is a mask [T, T] and the positions [T]."""
    for apart in (False, True):
        mask, positions = (
            torch.as_tensor(part) for part in places([2, 1, 2], apart)
        )
        name = "apart" if apart else "together"
        assert mask.shape == (5, 5), (
            f"passages of 2, 1 and 2 tokens have a mask of shape (5, 5), not "
            f"{tuple(mask.shape)}"
        )
        assert positions.shape == (5,), (
            "every one of the 5 tokens has a position"
        )
        assert not mask.bool().triu(1).any(), (
            "in a causal model no token attends to a later one"
        )
        assert mask.bool().diagonal().all(), "a token attends to itself"
        block = torch.tensor([0, 0, 1, 2, 2])
        same = block[:, None] == block[None]
        lower = torch.ones(5, 5).tril().bool()
        expected = lower & same if apart else lower
        assert torch.equal(mask.bool(), expected), (
            f"{name}, the third token (the second passage) attends to "
            f"{'itself only' if apart else 'the first passage, too'}; your row "
            f"is {mask[2].int().tolist()}"
        )
        right = [0, 1, 0, 0, 1] if apart else [0, 1, 2, 3, 4]
        assert positions.tolist() == right, (
            f"{name}, the positions are {right}; you returned "
            f"{positions.tolist()}"
        )


@exercise
def move(moved: Callable[[Tensor, int, Tensor], Tensor]) -> None:
    """`moved(keys, by, frequencies)` are the keys [T, d], `by` positions later."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.complex(*torch.randn(2, 3, 2, generator=generator))
    frequencies = torch.tensor([1.0, 0.1])

    def at(position: int, sign: int = 1) -> Tensor:
        turned = pairs * torch.exp(sign * 1j * position * frequencies)
        return torch.cat([turned.real, turned.imag], 1)

    found = torch.as_tensor(moved(at(3), 5, frequencies))
    assert found.shape == (3, 4), (
        f"three keys of four numbers stay so, not {tuple(found.shape)}"
    )
    backwards = torch.allclose(found, at(-2), atol=1e-5)
    assert not backwards, "the pairs were turned in the other direction"
    assert torch.allclose(found, at(8), atol=1e-5), (
        "the first and the third number of a key are one pair, the second and the "
        "fourth another; each is turned by `by` times its own frequency"
    )
    assert torch.allclose(
        torch.as_tensor(moved(at(3), -3, frequencies)), at(0), atol=1e-5
    ), "a negative distance turns them back"
