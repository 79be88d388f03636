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
    """Searches a passage index with the encoder that built it, or with another query tower that was
    trained with its passage tower.

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
        """The k passages with the highest score for each question; see `Retriever`.

        An approximate index may find fewer than k and gives -1 for the rest. These are left out, as
        -1 would otherwise mean the corpus's last passage.
        """
        if not questions:
            return []
        vectors = self.encoder.encode_queries([question.text for question in questions])
        found = []
        for scores, positions in zip(*self.index.search(vectors, k), strict=True):
            there = positions >= 0
            passages = tuple(self.index.corpus[int(position)] for position in positions[there])
            found.append(Retrieved(tuple(p.id for p in passages), scores[there], passages))
        return found
