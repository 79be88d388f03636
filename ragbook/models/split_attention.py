"""Self-attention of many prefixes to what they have read together and to what each has written.

A beam search continues several prefixes from every prompt, and a thorough one scores many answers
after it. The attention functions of `transformers` need a copy of the prompt's keys and values for
each of them, made anew with every token; over long prompts that costs more than the model. Here a
cache holds only what was written, and the prompt's keys and values stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "ragbook_split"

Layers = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [S, heads, L, d]."""


@dataclass(frozen=True)
class Read:
    """What R prefixes have read: prefix r the row `rows[r]` of the layers' S rows.

    Attributes
    ----------
    layers: keys and values of each layer, [S, heads, L, d].
    rows: int64 [R].
    """

    layers: Layers
    rows: Tensor

    def groups(self) -> list[tuple[int, Tensor]]:
        """Every row that was read, and the prefixes that have read it, int64."""
        return [(int(row), (self.rows == row).nonzero()[:, 0]) for row in self.rows.unique()]


_READ: list[tuple[Layers, list[tuple[int, Tensor]]]] = []
"""What the innermost open `reading` gave: the layers, and the groups of prefixes."""


def can_split(model: Any) -> bool:
    """Whether a Hugging Face model lets `split_attention` take its own attention's place."""
    sinks = any(hasattr(module, "sinks") for module in model.modules())
    return bool(getattr(model, "_supports_attention_backend", False)) and not sinks


@contextmanager
def reading(model: Any, read: Read | None) -> Iterator[None]:
    """Within the block the model's prefixes attend to what they have read, and its cache holds only
    what they have written. With None everything is as usual."""
    if read is None:
        yield
        return
    config = model.config
    usual = config._attn_implementation
    _READ.append((read.layers, read.groups()))
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
        _READ.pop()


def split_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1), one softmax over both parts.

    Parameters
    ----------
    query: [R, heads, t, d].
    key, value: those written, [R, kv_heads, w, d]; heads is a multiple of kv_heads (Ainslie et al.
        2023).
    attention_mask: additive, [R, 1, t, L + w], first over what was read.
    scaling: factor of the scores; 1 / sqrt(d) by default.
    softcap: Gemma's: scores s become softcap * tanh(s / softcap).

    Returns
    -------
    (output [R, t, heads, d], None).
    """
    layers, groups = _READ[-1]
    keys, values = layers[module.layer_idx]
    R, heads, t, d = query.shape
    K, L = keys.shape[1], keys.shape[2]
    factor = d**-0.5 if scaling is None else scaling
    query = query * factor

    def capped(scores: Tensor) -> Tensor:
        return scores if softcap is None else softcap * (scores / softcap).tanh()

    grouped = query.reshape(R, K, -1, d)  # [R, K, g * t, d]
    written = capped(grouped @ key.transpose(2, 3)).reshape(R, heads, t, -1)
    out = query.new_empty(R, heads, t, value.shape[3])
    for row, own in groups:
        m = len(own)
        folded = grouped[own].transpose(0, 1).reshape(K, -1, d)  # [K, m * g * t, d]
        scores = capped(folded @ keys[row].transpose(1, 2))
        scores = scores.reshape(K, m, -1, t, L).transpose(0, 1).reshape(m, heads, t, L)
        scores = torch.cat([scores, written[own]], -1)
        if attention_mask is not None:
            scores = scores + attention_mask[own]
        weights = scores.softmax(-1)
        past = weights[..., :L].reshape(m, K, -1, L).transpose(0, 1).reshape(K, -1, L) @ values[row]
        now = weights[..., L:].reshape(m, K, -1, scores.shape[-1] - L) @ value[own]
        past = past.reshape(K, m, -1, now.shape[-1]).transpose(0, 1)
        out[own] = (past + now).reshape(m, heads, t, -1)
    return out.transpose(1, 2), None


AttentionInterface.register(NAME, split_attention)
AttentionMaskInterface.register(NAME, eager_mask)
