r"""Lexical retrieval: Okapi BM25 (Robertson and Zaragoza 2009, equation 3.15) in Lucene's form,

\[ \text{score}(q, z) = \sum_{w \in q} \ln\!\left(1 + \frac{N - n_w + 1/2}{n_w + 1/2}\right)
   \frac{f_{w,z}}{f_{w,z} + k_1 (1 - b + b\, |z| / \overline{|z|})}, \]

with \(N\) passages, of which \(n_w\) hold the term \(w\); passage \(z\) has \(|z|\) terms and holds
\(w\) \(f_{w,z}\) times. A term that occurs several times in the question counts each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.manifests import BM25_FILE
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval.base import Retrieved
from ragbook.retrieval.inverted import K1, B, build, kept, terms

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.index.passages import StoredPassages

__all__ = ["K1", "B", "BM25Retriever", "terms"]


class BM25Retriever:
    """BM25 over titles and texts of a corpus, its inverted lists held in memory.

    Passages with equal scores are in the corpus's order; a question without a known term gets the
    corpus's first passages, all with score 0.

    Parameters
    ----------
    corpus: the passages.
    folder: where the inverted lists are kept, such as the folder of the corpus's index; without it
        they are built each time. See `ragbook.retrieval.inverted`.

    Raises
    ------
    InputError: the corpus has no words.
    """

    name = "bm25"
    score_scale = 1.0

    def __init__(self, corpus: Corpus | StoredPassages, folder: Path | None = None) -> None:
        self.corpus = corpus
        self._bm25 = build(corpus) if folder is None else kept(corpus, folder / BM25_FILE)

    def scores(self, question: str) -> np.ndarray:
        """The score of every passage for one question, float32 [N]."""
        return self._scores(terms([question])[0])

    def _scores(self, words: list[str]) -> np.ndarray:
        return self._bm25.get_scores_from_ids(self._bm25.get_tokens_ids(words))

    @one_at_a_time
    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The k passages with the highest BM25 score for each question; see `Retriever`."""
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        asked = terms([question.text for question in questions]) if questions else []
        return [self._top(self._scores(words), k) for words in asked]

    def _top(self, scores: np.ndarray, k: int) -> Retrieved:
        found = best(scores, k)
        passages: tuple[Passage, ...] = tuple(self.corpus[int(position)] for position in found)
        return Retrieved(tuple(p.id for p in passages), scores[found], passages)


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """The positions of the k highest of scores that are never below 0, or of all if there are
    fewer, best first, int64 [k]; of equal scores the first positions."""
    k = min(k, len(scores))
    candidates = np.flatnonzero(scores)  # of many passages, few have a word of the question
    own = scores[candidates]
    if len(candidates) > k:
        # Take all that reach the k-th best score, so that of equal ones the first win.
        threshold = np.partition(own, len(own) - k)[len(own) - k]
        candidates = candidates[own >= threshold]
        own = scores[candidates]
    chosen = candidates[np.argsort(-own, kind="stable")[:k]]
    if len(chosen) < k:  # the rest are the first of the others
        others = np.flatnonzero(scores[: k + len(chosen)] == 0)
        chosen = np.concatenate([chosen, others[: k - len(chosen)]])
    return chosen
