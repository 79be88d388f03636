r"""Keys moved to other positions, in models whose positions are rotary (Su et al. 2021, RoFormer).

Such a model turns the pair of numbers \((k_i, k_{i + d/2})\) of a key at position p by the angle
\(p \omega_i\) before it is compared with a query, and nothing else depends on positions. A key that
was computed at p becomes that of p + s if it is turned by another \(s \omega_i\). Passages that
were read at one position can thus follow one another without being read again, as in
Block-Attention (Ma et al. 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PROBE, SHIFT = (5, 6, 7), 11
"""Tokens and a distance with which it is tried whether a model's keys can be moved."""


@dataclass(frozen=True)
class Rotation:
    """The angles of one step, float32 [r / 2]; the first r numbers of a key are turned."""

    frequencies: Tensor

    def moved(self, keys: Tensor, by: int) -> Tensor:
        """Keys [..., L, d] as they would be `by` positions later."""
        if by == 0:
            return keys
        r = 2 * len(self.frequencies)
        angles = (by * self.frequencies).to(keys.device)
        cos, sin = angles.cos(), angles.sin()
        first, second = keys[..., : r // 2].float(), keys[..., r // 2 : r].float()
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
        return torch.cat([turned.to(keys.dtype), keys[..., r:]], -1)


@torch.no_grad()
def rotation_of(model: Any) -> Rotation | None:
    """The rotation of a Hugging Face causal model, or None where keys cannot be moved.

    Whether they can is tried: a few tokens are read at two places, and after every layer the moved
    keys have to be those of the other place, and the values the same.
    """
    frequencies = [
        module.inv_freq
        for module in model.modules()
        if isinstance(getattr(module, "inv_freq", None), Tensor)
    ]
    if not frequencies:
        return None
    rotation = Rotation(frequencies[0].detach().float().cpu())
    here, there = (_read(model, at) for at in (0, SHIFT))
    for (keys, values), (other_keys, other_values) in zip(here, there, strict=True):
        if 2 * len(rotation.frequencies) > keys.shape[-1]:
            return None
        if not (_close(rotation.moved(keys, SHIFT), other_keys) and _close(values, other_values)):
            return None
    return rotation


def _read(model: Any, at: int) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of the probe's tokens, the first at position `at`."""
    device = next(model.parameters()).device
    ids = torch.tensor([PROBE], device=device)
    places = torch.arange(at, at + len(PROBE), device=device)[None]
    cache = model(input_ids=ids, position_ids=places, use_cache=True).past_key_values
    return [(layer.keys, layer.values) for layer in cache.layers]


def _close(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal up to the rounding of their type."""
    tolerance = 30 * torch.finfo(one.dtype).eps
    difference = (one.float() - other.float()).abs().max()
    return bool(difference <= tolerance * one.float().abs().max())
