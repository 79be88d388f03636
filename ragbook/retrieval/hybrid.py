r"""Several retrievers as one: reciprocal rank fusion (Cormack, Clarke and Büttcher 2009),

\[ \text{score}(x, z) = \sum_r \frac{1}{60 + \text{rank}_r(x, z)}, \]

with the sum over the retrievers that have \(z\) among their best. Only ranks count, so scores of
different kinds (inner products and BM25's) need no common scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.retrieval.base import Retrieved, Retriever

CONSTANT = 60  # as in the paper
DEPTH = 100
"""The least number of passages that each retriever is asked for: a passage that all of them rank
low can still win."""


class HybridRetriever:
    """Fuses the ranks of other retrievers over one corpus.

    Passages with equal scores are in the first retriever's order, then in that of the second.

    Parameters
    ----------
    retrievers: two or more.
    score_scale: the factor of the fused scores in the softmax that gives p(z | x). The best value
        depends on the corpus and the retrievers: the default makes the gold passages of MiniWiki's
        dev questions likeliest among the 5 best (600 to 1,000 differ little). Fit it to your own
        questions if p(z | x) matters to you.

    Raises
    ------
    InputError: fewer than two retrievers.
    """

    name = "hybrid"

    def __init__(self, *retrievers: Retriever, score_scale: float = 800.0) -> None:
        if len(retrievers) < 2:
            raise InputError("A hybrid retriever needs at least two retrievers; give another one.")
        self.retrievers, self.score_scale = retrievers, score_scale

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The k passages with the highest fused score for each question; see `Retriever`."""
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        rankings = [r.retrieve(questions, max(k, DEPTH)) for r in self.retrievers]
        return [_fuse(found, k) for found in zip(*rankings, strict=True)]


def _fuse(rankings: Sequence[Retrieved], k: int) -> Retrieved:
    scores: dict[str, float] = {}
    passages: dict[str, Passage] = {}
    for found in rankings:
        for rank, passage in enumerate(found.passages, 1):
            scores[passage.id] = scores.get(passage.id, 0.0) + 1 / (CONSTANT + rank)
            passages[passage.id] = passage
    best = sorted(scores, key=lambda passage_id: -scores[passage_id])[:k]  # a stable sort
    return Retrieved(
        tuple(best),
        np.array([scores[i] for i in best], dtype=np.float32),
        tuple(passages[i] for i in best),
    )
