r"""REALM's embedder: BERT's pooled [CLS] state, projected and normalised (section 3.2),

\[ \mathrm{Embed}_{\text{doc}}(z) =
   W\, \mathrm{BERT}_{\mathrm{CLS}}(\mathrm{join}(z_{\text{title}}, z_{\text{body}})), \qquad
   f(x, z) = \mathrm{Embed}_{\text{input}}(x)^\top \mathrm{Embed}_{\text{doc}}(z). \]

The released code pools with BERT's own layer (a linear map and tanh) and ends in a layer norm; so
does this.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import BaseModelOutput


class ProjectedTower(nn.Module):
    """A tower for `Encoder` with `cls` pooling: its one state is the projected vector.

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
        """As of `BertModel`."""
        self.bert.set_attn_implementation(name)
