"""The encoder: two towers that give passages and questions vectors in the same space.

`Encoder` has BERT towers, as in the embedded encoder, DPR and REALM; `ragbook.models.sentence` has
towers of all other layouts, with the same methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from copy import copy, deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ragbook.corpus import Passage
from ragbook.models.devices import products_in
from ragbook.models.prompts import passage_text
from ragbook.models.sharing import one_at_a_time

MAX_TOKENS = 256
"""The most tokens that a BERT tower reads (MiniLM's authors and DPR's chose this); the rest is
dropped."""

POOLINGS = ("mean", "cls")
SIMILARITIES = ("cosine", "dot", "l2")
SCORE_SCALES = {"cosine": 20.0, "dot": 1.0, "l2": 1.0}
"""Default factors of the scores in the loss: for the cosine that of the embedded encoder's training
(and of sentence-transformers'); for the others 1, as in DPR, because the towers can learn the
lengths of their vectors."""
SENTENCE, SEGMENTS, TYPED = "title. text", "title [SEP] text", "title [SEP] text, two types"
"""How a passage is read: its title as a first sentence, or as a segment of its own, which shares
its token type with the text (DPR) or has another (REALM)."""


class Encoder:
    r"""Two towers that give passages and questions vectors in the same space; here, two BERTs.

    DPR (Karpukhin et al. 2020, section 3.1) has two towers, MiniLM one that reads both. From the
    vectors \(p\) of passage z and \(q\) of question x comes the score, higher for better passages:

    * `cosine`: \(p \cdot q\), both scaled to length 1;
    * `dot`: \(p \cdot q\);
    * `l2`: \(-\lVert p - q \rVert^2\).

    Attributes
    ----------
    passage_model, query_model: the towers, the same object if one reads both.
    tokenizer: the tokenizer of both; if each has its own, that of the passages.
    id: the name it was loaded by; the weights decide whether two encoders are the same, not this.
    query_id: the name of the query tower, if it was loaded by another name.
    sha256: of the passage tower's weights. An index depends on this tower alone: any query tower
        that was trained with it may search.
    query_sha256: of the query tower's weights.
    pooling: `mean` of the last states over real tokens, the first one (`cls`), or another pooling
        of sentence-transformers.
    prompts: texts before each query and passage, under `query` and `passage`, if there are any.
    max_tokens: the most tokens of a passage that are read; None if there is no limit.
    similarity: `cosine`, `dot` or `l2`.
    metric: how the index compares vectors, `inner_product` or `l2`.
    score_scale: the factor of the scores before the softmax in training, so that log p(z | x) =
        log_softmax(score_scale * score) is the distribution it was trained for.
    passage_form: `title. text`, `title [SEP] text` or the latter with two token types.
    dimension: length of a vector.
    precision: of `encode_passages`: `float32`, or `bfloat16` or `float16` for the products of
        matrices, which takes a fraction of the time where the device multiplies in it. Weights and
        vectors are float32.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        id: str,
        sha256: str,
        score_scale: float,
        *,
        query_model: Any = None,
        query_sha256: str | None = None,
        pooling: str = "mean",
        similarity: str = "cosine",
        passage_form: str = SENTENCE,
        dimension: int | None = None,
    ) -> None:
        self.passage_model = model.eval()
        self.query_model = model if query_model is None else query_model.eval()
        self.tokenizer = tokenizer
        self.id, self.sha256, self.query_sha256 = id, sha256, query_sha256 or sha256
        self.score_scale = score_scale
        self.pooling, self.similarity, self.passage_form = pooling, similarity, passage_form
        self.metric = "l2" if similarity == "l2" else "inner_product"
        projected = getattr(getattr(model, "config", None), "retriever_proj_size", None)
        self.dimension: int = dimension or projected or model.config.hidden_size
        self.precision = "float32"
        self.query_id: str | None = None
        self.prompts: Mapping[str, str] = {}
        self.max_tokens: int | None = MAX_TOKENS

    @property
    def model(self) -> Any:
        """The passage tower, which is the only tower if one reads both."""
        return self.passage_model

    def to(self, device: str) -> Encoder:
        """Move the towers to a device (`cpu`, `cuda`, `cuda:1`), and return the encoder itself. The
        results of `encode_queries` and `encode_passages` are on the CPU all the same."""
        self.passage_model.to(device)
        self.query_model.to(device)
        return self

    def changed(self, **attributes: Any) -> Encoder:
        """An encoder that differs from this one in these attributes, and shares the rest."""
        other = copy(self)
        vars(other).update(attributes)
        other.metric = "l2" if other.similarity == "l2" else "inner_product"
        return other

    def untied(self) -> Encoder:
        """The same encoder with a copy of its query tower, to be trained. The passage tower is
        shared with this encoder and does not change, so indexes built with it stay valid."""
        return self.changed(query_model=deepcopy(self.query_model))

    def query_vectors(self, queries: Sequence[str]) -> Tensor:
        """float32 [n, d], in one forward pass, with gradients to the query tower."""
        return self.vectors(self.query_model, self._inputs(list(queries)))

    def passage_vectors(self, passages: Sequence[Passage]) -> Tensor:
        """float32 [n, d], in one forward pass, with gradients to the passage tower."""
        if self.passage_form == SENTENCE:
            inputs = self._inputs([passage_text(p) for p in passages])
        else:
            inputs = self._inputs([(p.title, p.text) if p.title else p.text for p in passages])
            if self.passage_form == SEGMENTS:
                inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        return self.vectors(self.passage_model, inputs)

    def vectors(self, tower: Any, inputs: dict[str, Tensor]) -> Tensor:
        """The vectors of tokenised texts under one of the towers, float32 [n, d], on the device of
        the tower, with gradients.

        With `cosine` they have length 1, otherwise the length that the tower gave them.
        """
        device = next(tower.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        states = tower(**inputs).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0].float()
        else:
            mask = inputs["attention_mask"][:, :, None].float()
            pooled = (states * mask).sum(1) / mask.sum(1)
        return functional.normalize(pooled, dim=-1) if self.similarity == "cosine" else pooled

    def scores(self, queries: Tensor, passages: Tensor) -> Tensor:
        """The similarity of question and passage vectors, float32 [B, n], with gradients.

        Parameters
        ----------
        queries: [B, d].
        passages: [n, d], the same for all questions, or [B, n, d], each question's own.
        """
        if self.similarity == "l2":
            return -(queries[:, None] - passages).square().sum(-1)
        return (passages @ queries[:, :, None]).squeeze(-1)

    @one_at_a_time
    def encode_queries(self, queries: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """float32 [n, d]; see `vectors`."""
        lengths = [len(query) for query in queries]
        return self._encode(self.query_vectors, queries, lengths, batch_size, "float32")

    @one_at_a_time
    def encode_passages(self, passages: Sequence[Passage], batch_size: int = 64) -> np.ndarray:
        """float32 [n, d]; see `vectors`."""
        lengths = [len(passage_text(p)) for p in passages]
        return self._encode(self.passage_vectors, passages, lengths, batch_size, self.precision)

    def _inputs(self, texts: list[Any]) -> dict[str, Tensor]:
        return dict(
            self.tokenizer(
                texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
        )

    @torch.no_grad()
    def _encode(
        self,
        vectors_of: Callable[[Sequence[Any]], Tensor],
        texts: Sequence[Any],
        lengths: Sequence[int],
        batch_size: int,
        precision: str,
    ) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lengths.__getitem__)  # little padding
        device = next(self.passage_model.parameters()).device
        with products_in(getattr(torch, precision), device):
            for at in range(0, len(order), batch_size):
                rows = order[at : at + batch_size]
                vectors[rows] = vectors_of([texts[i] for i in rows]).cpu().numpy()
        return vectors


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of a tower's tensors, as float32 and in the order of their names: it does not depend
    on how files store them. The embedded encoder has the hash of its published file instead."""
    return tensors_sha256(model.state_dict())


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors with their names, as float32 and in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        array = value.detach().float().cpu().contiguous().numpy()
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
