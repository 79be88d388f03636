"""Dense retrieval: the nearest passages to the encoded question (DPR, Karpukhin et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragbook.corpus import Question
from ragbook.retrieval.base import Retrieved

if TYPE_CHECKING:
    from ragbook.index import PassageIndex
    from ragbook.models import Encoder


class DenseRetriever:
    """Searches a passage index with the encoder that built it.

    Raises
    ------
    InputError: another encoder built the index.
    """

    name = "dense"

    def __init__(self, index: PassageIndex, encoder: Encoder) -> None:
        index.check_encoder(encoder)
        self.index = index
        self.encoder = encoder
        self.score_scale = encoder.score_scale

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The k passages of greatest inner product with each question; see `Retriever`."""
        if not questions:
            return []
        vectors = self.encoder.encode_queries([question.text for question in questions])
        found = []
        for scores, positions in zip(*self.index.search(vectors, k), strict=True):
            passages = tuple(self.index.corpus[int(position)] for position in positions)
            found.append(Retrieved(tuple(p.id for p in passages), scores, passages))
        return found
