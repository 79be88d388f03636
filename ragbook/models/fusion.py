"""Passages laid end to end for one decoder, as in Fusion-in-Decoder (Izacard & Grave 2021).

Attention over several passages at once does not need the padding between them, so `pack` leaves it
out; `owner` says which passage each position came from.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fuse(encoder_states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lay the passages' states end to end for the decoder (section 3, figure 2).

    Parameters
    ----------
    encoder_states: [B, n, L, d].
    mask: [B, n, L], 1 on real tokens.

    Returns
    -------
    ([B, n * L, d], [B, n * L]): passage i's tokens stand at i * L to (i + 1) * L - 1.
    """
    return encoder_states.flatten(1, 2), mask.flatten(1, 2)


def pack(encoder_states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse the states and leave the padding out: a question's real tokens end to end, in order.

    Parameters
    ----------
    encoder_states: [B, n, L, d].
    mask: [B, n, L], 1 on real tokens.

    Returns
    -------
    (states [B, P, d], mask [B, P], owner int64 [B, P]), P the greatest number of real tokens of a
    question. Each row begins with its real tokens, on which the mask is 1; `owner` is the passage
    of each, 0 to n - 1, and -1 on padding.
    """
    states, real = fuse(encoder_states, mask)
    longest = int((real != 0).sum(1).max())
    at = torch.argsort((real == 0).long(), dim=1, stable=True)[:, :longest]
    real = real.gather(1, at)
    rows = torch.arange(len(states), device=states.device)[:, None]
    return states[rows, at], real, torch.where(real != 0, at // mask.shape[2], -1)


def passage_sums(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """Sum values [B, P] over each passage's tokens: [B, n]. `owner` [B, P] is as `pack` returns it,
    with n passages."""
    sums = values.new_zeros(len(values), n + 1)
    return sums.scatter_add(1, torch.where(owner < 0, n, owner), values)[:, :n]
