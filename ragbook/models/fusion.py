"""Passages laid end to end for one decoder, as Fusion-in-Decoder reads them (Izacard & Grave 2021).

Attention over several passages at once has no use for the padding between them, so `pack` leaves it
out; `owner` remembers which passage each place came from.
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
    """Fuse, and leave the padding out: a question's real tokens end to end, in their order.

    Parameters
    ----------
    encoder_states: [B, n, L, d].
    mask: [B, n, L], 1 on real tokens.

    Returns
    -------
    (states [B, P, d], mask [B, P], owner int64 [B, P]), P the greatest number of real tokens of a
    question. The mask is 1 on the first tokens of a row, as many as are real; `owner` names the
    passage of each, 0 to n - 1, and is -1 on padding.
    """
    states, real = fuse(encoder_states, mask)
    longest = int((real != 0).sum(1).max())
    at = torch.argsort((real == 0).long(), dim=1, stable=True)[:, :longest]
    real = real.gather(1, at)
    rows = torch.arange(len(states), device=states.device)[:, None]
    return states[rows, at], real, torch.where(real != 0, at // mask.shape[2], -1)


def passage_sums(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """The sums [B, n] over each passage's tokens of values [B, P], `owner` as `pack` gives it."""
    sums = values.new_zeros(len(values), n + 1)
    return sums.scatter_add(1, torch.where(owner < 0, n, owner), values)[:, :n]
