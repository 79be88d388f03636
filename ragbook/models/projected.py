r"""REALM's embedder: BERT's pooled [CLS] state, projected and normalised (section 3.2),

\[ \mathrm{Embed}_{\text{doc}}(z) =
   W\, \mathrm{BERT}_{\mathrm{CLS}}(\mathrm{join}(z_{\text{title}}, z_{\text{body}})), \qquad
   f(x, z) = \mathrm{Embed}_{\text{input}}(x)^\top \mathrm{Embed}_{\text{doc}}(z). \]

The released code pools with BERT's own layer (a linear map and tanh) and ends with a layer norm; so
does `ProjectedTower`. `NarrowTower` has the same projection over an encoder that is not trained.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import BaseModelOutput

KEPT_TEXTS = 65_536
"""How many texts' vectors a `NarrowTower` keeps, those used last: 100 MB of MiniLM's in float32."""


class ProjectedTower(nn.Module):
    """A tower for `Encoder` with `cls` pooling: its only state is the projected vector.

    Parameters
    ----------
    config: BERT's, with `retriever_proj_size`, the length of the vectors.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.bert = BertModel(config)
        self.dense = nn.Linear(config.hidden_size, config.retriever_proj_size)
        self.norm = nn.LayerNorm(config.retriever_proj_size, eps=config.layer_norm_eps)

    def forward(self, **inputs: torch.Tensor) -> Any:
        """`last_hidden_state` is float [B, 1, retriever_proj_size]."""
        projected = self.norm(self.dense(self.bert(**inputs).pooler_output))
        return BaseModelOutput(last_hidden_state=projected[:, None])

    def set_attn_implementation(self, name: str) -> None:
        """As in `BertModel`."""
        self.bert.set_attn_implementation(name)


class NarrowTower(nn.Module):
    """A frozen encoder (the body) and a linear map of its vectors, which is trained.

    The body's vectors of the last `KEPT_TEXTS` different texts are kept, so that training the map,
    and indexing with it again and again, encodes each text only once. It is a tower for `Encoder`
    with `cls` pooling: its only state is the mapped vector.

    Parameters
    ----------
    config: of the body, with `retriever_proj_size`, the length of the vectors, and `frozen_body`.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.body = BertModel(config, add_pooling_layer=False).requires_grad_(False)
        self.projection = nn.Linear(config.hidden_size, config.retriever_proj_size, bias=False)
        self._kept: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def forward(self, **inputs: Tensor) -> Any:
        """`last_hidden_state` is float [B, 1, retriever_proj_size]."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        keys = [tuple(row[own].tolist()) for row, own in zip(ids, mask.bool(), strict=True)]
        new = [n for n, key in enumerate(keys) if key not in self._kept]
        if new:
            with torch.no_grad():
                states = self.body(**{name: value[new] for name, value in inputs.items()})
                weights = mask[new, :, None].float()
                means = (states.last_hidden_state * weights).sum(1) / weights.sum(1)
            kept = functional.normalize(means, dim=-1)
            self._kept.update((keys[n], vector) for n, vector in zip(new, kept, strict=True))
        device = ids.device  # the tower may have been moved since
        vectors = torch.stack([self._kept[key].to(device) for key in keys])
        for key in keys:
            self._kept.move_to_end(key)
        while len(self._kept) > KEPT_TEXTS:
            self._kept.popitem(last=False)
        mapped = self.projection(vectors.to(self.projection.weight.dtype))
        return BaseModelOutput(last_hidden_state=mapped[:, None])

    def set_attn_implementation(self, name: str) -> None:
        """As in `BertModel`."""
        self.body.set_attn_implementation(name)


def new_tower(config: Any) -> nn.Module:
    """The tower that a configuration describes, with untrained weights: a plain BERT or a tower of
    this module."""
    if getattr(config, "retriever_proj_size", None) is None:
        return BertModel(config, add_pooling_layer=False)
    return NarrowTower(config) if getattr(config, "frozen_body", False) else ProjectedTower(config)
