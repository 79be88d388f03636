"""Random passages, to test methods with retrieval that finds nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.retrieval.base import Retrieved

if TYPE_CHECKING:
    from ragbook.corpus import Corpus


class RandomRetriever:
    """k different random passages of the corpus, all with score 0; all sets are equally likely.

    The passages depend only on the seed, the question's text and k, so that a question gets the
    same ones in every batch; with another k they may all differ.
    """

    name = "random"
    score_scale = 1.0

    def __init__(self, corpus: Corpus, seed: int = 0) -> None:
        self.corpus = corpus
        self.seed = seed

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """k passages for each question; see `Retriever`."""
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        return [self._draw(question.text, min(k, len(self.corpus))) for question in questions]

    def _draw(self, text: str, k: int) -> Retrieved:
        digest = hashlib.sha256(f"{self.seed} {text}".encode("utf-8", "surrogatepass")).digest()
        rng = np.random.default_rng(list(digest))
        passages = tuple(self.corpus[int(i)] for i in rng.choice(len(self.corpus), k, False))
        return Retrieved(tuple(p.id for p in passages), np.zeros(k, np.float32), passages)
