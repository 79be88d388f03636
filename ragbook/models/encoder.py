"""Passage and question encoders for dense retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.embedded import (
    MINILM_ID,
    MINILM_SHA256,
    minilm_model,
    minilm_tokenizer,
)
from ragbook.models.prompts import passage_text

MAX_TOKENS = 256
"""Tokens the embedded encoder reads, as its authors set it; what a text has more is dropped."""


class Encoder:
    """A BERT-style bi-encoder: mean of the last states over real tokens, scaled to length 1.

    `score_scale` is the factor its training multiplied the inner products by before the softmax, so
    that log p(z | x) = log_softmax(score_scale * score) is the distribution it was trained for.
    """

    pooling = "mean"
    metric = "inner_product"

    def __init__(
        self, model: Any, tokenizer: Any, id: str, sha256: str, score_scale: float
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.id, self.sha256, self.score_scale = id, sha256, score_scale
        self.dimension: int = model.config.hidden_size

    def encode_queries(self, queries: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """float32 [n, d], rows of length 1."""
        vectors = np.zeros((len(queries), self.dimension), dtype=np.float32)
        order = sorted(range(len(queries)), key=lambda i: len(queries[i]))
        for at in range(0, len(order), batch_size):
            rows = order[at : at + batch_size]
            vectors[rows] = self._encode([queries[i] for i in rows])
        return vectors

    def encode_passages(self, passages: Sequence[Passage], batch_size: int = 64) -> np.ndarray:
        """float32 [n, d], rows of length 1; a passage is read title first."""
        return self.encode_queries([passage_text(p) for p in passages], batch_size)

    @torch.no_grad()
    def _encode(self, texts: list[str]) -> np.ndarray:
        inputs = self.tokenizer(
            texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None].float()
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy()


def load_encoder(name: str = "minilm") -> Encoder:
    """The encoder of that name.

    Raises
    ------
    InputError: the name is unknown, or the embedded weights are missing or damaged.
    """
    if name not in ("minilm", MINILM_ID):
        raise InputError(f"there is no encoder {name!r}; this version has 'minilm' ({MINILM_ID})")
    return Encoder(minilm_model(), minilm_tokenizer(), MINILM_ID, MINILM_SHA256, 20.0)
