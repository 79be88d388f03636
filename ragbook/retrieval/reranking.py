r"""Reranking: a cross-encoder reads the best passages of a retriever with the question, and orders
them anew (Nogueira and Cho 2019).

Its scores are logits, so p(z | x) is their softmax as they are, with a `score_scale` of 1: for a
model that was trained to tell relevant from irrelevant passages, a logit is the logarithm of the
odds that the passage is relevant, and
\[ p(z \mid x) \propto \frac{p(\text{relevant} \mid x, z)}{p(\text{irrelevant} \mid x, z)}. \]
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval.base import Retrieved, Retriever

if TYPE_CHECKING:
    from ragbook.models.cross_encoder import CrossEncoder

DEPTH = 100
"""How many passages are read with the question, where nobody says."""
KEPT = 4_096
"""Questions whose order is kept: a comparison asks for the same passages several times."""


class RerankedRetriever:
    """The `depth` best passages of a retriever in the order of a cross-encoder's scores; equal ones
    are in the retriever's order. Each pair of question and passage is scored once.

    Parameters
    ----------
    retriever: finds the passages; any.
    reranker: scores them.
    depth: how many passages are scored for a question.

    Attributes
    ----------
    corpus, index: those of the retriever or of its parts; None where it has none.

    Raises
    ------
    InputError: depth < 1.
    """

    score_scale = 1.0

    def __init__(self, retriever: Retriever, reranker: CrossEncoder, depth: int = DEPTH) -> None:
        if depth < 1:
            raise InputError(f"The number of passages to rerank must be 1 or more, not {depth}.")
        self.retrievers, self.reranker, self.depth = (retriever,), reranker, depth
        self.name = f"{retriever.name}-reranked"
        self.corpus, self.index = _of_parts(retriever, "corpus"), _of_parts(retriever, "index")
        self._kept: OrderedDict[tuple[Question, str | None], Retrieved] = OrderedDict()

    @one_at_a_time
    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The k passages with the highest score of the cross-encoder; see `Retriever`.

        Raises
        ------
        InputError: k < 1, or k is more than the number of passages that are reranked.
        """
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        if k > self.depth:
            raise InputError(
                f"{self.depth} passages are reranked, so {k} cannot be the best of them; rerank at "
                "least as many as are retrieved."
            )
        keys = [(question, question.id) for question in questions]
        new = {key: key[0] for key in keys if key not in self._kept}
        found = self.retrievers[0].retrieve(list(new.values()), self.depth) if new else []
        own = {
            key: self._reranked(question, one)
            for (key, question), one in zip(new.items(), found, strict=True)
        }
        out = [_first(own[key] if key in own else self._kept[key], k) for key in keys]
        self._kept.update(own)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return out

    def _reranked(self, question: Question, found: Retrieved) -> Retrieved:
        scores = self.reranker.scores(question.text, found.passages)
        order = np.argsort(-scores, kind="stable").tolist()
        passages = tuple(found.passages[i] for i in order)
        return Retrieved(tuple(p.id for p in passages), scores[order].astype(np.float32), passages)


def _first(found: Retrieved, k: int) -> Retrieved:
    return Retrieved(found.ids[:k], found.scores[:k], found.passages[:k])


def _of_parts(retriever: Any, what: str) -> Any:
    """An attribute of a retriever, or of the first of its parts that has it."""
    parts = (*getattr(retriever, "retrievers", ()), getattr(retriever, "fallback", None))
    found = [getattr(retriever, what, None)]
    found += (_of_parts(part, what) for part in parts if part is not None)
    return next((one for one in found if one is not None), None)
