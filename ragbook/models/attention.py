"""Cross-attention of many prefixes to one input, without a copy of its keys and values for each.

A beam search continues several prefixes from every input. The attention functions of `transformers`
need one row of keys for each row of queries, so that an input's keys and values would be copied for
each of its prefixes and moved whenever prefixes change their order. Here the prefixes of one input
attend as if they were one longer query.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask

from ragbook.errors import InputError

NAME = "ragbook_shared"

_RECORDS: list[list[Tensor]] = []
"""Where `shared_attention` stores its scores: one list for each open `recorded_scores`."""


def shared_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1) for R queries on S keys.

    Parameters
    ----------
    query: [R, heads, t, d]; rows i * R / S to (i + 1) * R / S - 1 attend to key row i.
    key, value: [S, heads, L, d], R a multiple of S; or fewer heads, each of them read by as many
        neighbouring heads of the query (Ainslie et al. 2023).
    attention_mask: additive, [S or 1, 1, t or 1, L]; where R > S it must not depend on t.
    scaling: factor of the scores; 1 / sqrt(d) by default.
    dropout: probability of dropping a weight, in training.
    position_bias: T5's, added to the scores, [1 or S, heads, t, L]; zero in cross-attention, except
        in checkpoints made before `transformers` 4.
    softcap: Gemma's: scores s become softcap * tanh(s / softcap).

    Returns
    -------
    (output [R, t, heads, d], weights [R, heads, t, L]).
    """
    R, heads, t, d = query.shape
    S, length = key.shape[0], key.shape[2]
    group = R // S
    if key.shape[1] != heads:
        key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
    factor = d**-0.5 if scaling is None else scaling
    folded = query.reshape(S, group, heads, t, d).transpose(1, 2).reshape(S, heads, group * t, d)
    scores = torch.matmul(folded, key.transpose(2, 3)) * factor
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if position_bias is not None:
        scores = scores + position_bias.repeat(1, 1, group, 1)
    for record in _RECORDS:
        record.append(scores)
    if attention_mask is not None:
        scores = scores + attention_mask[..., :length]
    weights = scores.softmax(-1)
    weights = torch.nn.functional.dropout(weights, dropout, module.training)

    def unfold(folded: Tensor) -> Tensor:
        parts = folded.reshape(S, heads, group, t, -1).transpose(1, 2)
        return parts.reshape(R, heads, t, -1)

    return unfold(torch.matmul(weights, value)).transpose(1, 2), unfold(weights)


class PackedCache(DynamicCache):
    """Cross-attention's keys and values, which know whose they are where padding was left out.

    `owner`, int64 [S, L], names the passage of each key, -1 on padding; None where the S inputs
    are read as they are.
    """

    def __init__(self, owner: Tensor | None = None) -> None:
        super().__init__()
        self.owner = owner

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, int64 [S']."""
        super().batch_select_indices(indices)
        self.owner = None if self.owner is None else self.owner[indices]


@contextmanager
def recorded_scores() -> Iterator[list[Tensor]]:
    """Record the scores [S, heads, R / S * t, L] of every `shared_attention` inside the block, in
    the order they are computed: scaled and with the position bias, before the mask and the
    softmax."""
    record: list[Tensor] = []
    _RECORDS.append(record)
    try:
        yield record
    finally:
        _RECORDS.remove(record)


def share_cross_attention(decoder: Any) -> None:
    """Let a Hugging Face decoder use `shared_attention`, which can also return its weights.

    The encoder keeps its own attention, which is faster. In some models (BART) both read the same
    configuration; the decoder then gets a copy.

    Raises
    ------
    InputError: it has an attention of its own, which takes no other's place.
    """
    AttentionInterface.register(NAME, shared_attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    if hasattr(decoder, "set_attn_implementation"):
        common, own = decoder.config, copy(decoder.config)
        for module in decoder.modules():
            if getattr(module, "config", None) is common:
                module.config = own
        decoder.set_attn_implementation(NAME)  # which only warns where it cannot
        if decoder.config._attn_implementation == NAME:
            return
    raise InputError(
        f"{type(decoder).__name__} has an attention of its own, in which prefixes cannot share an "
        "input's keys; read with another model, such as BART, Pegasus, T5 or two BERTs"
    )
