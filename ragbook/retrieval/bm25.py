r"""Lexical retrieval: Okapi BM25 (Robertson and Zaragoza 2009, equation 3.15) in Lucene's form,

\[ \text{score}(q, z) = \sum_{w \in q} \ln\!\left(1 + \frac{N - n_w + 1/2}{n_w + 1/2}\right)
   \frac{f_{w,z}}{f_{w,z} + k_1 (1 - b + b\, |z| / \overline{|z|})}, \]

with \(N\) passages, of which \(n_w\) hold the term \(w\); passage \(z\) has \(|z|\) terms and holds
\(w\) \(f_{w,z}\) times. A term that occurs several times in the question counts each time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import bm25s
import numpy as np
import Stemmer

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval.base import Retrieved

if TYPE_CHECKING:
    from ragbook.corpus import Corpus

K1 = 1.2  # Lucene's defaults
B = 0.75


def terms(texts: Sequence[str]) -> list[list[str]]:
    """The terms of texts, for passages and questions in the same way.

    They are the lower-cased words, also those of one letter (Henry V is not Henry VIII), without
    English stop words, reduced to their stems by the Snowball stemmer.
    """
    return bm25s.tokenize(  # type: ignore[return-value]  # a list, as no ids are asked for
        list(texts),
        token_pattern=r"(?u)\b\w+\b",
        stopwords="en",
        stemmer=Stemmer.Stemmer("english"),
        return_ids=False,
        show_progress=len(texts) > 100_000 and sys.stderr.isatty(),
    )


class BM25Retriever:
    """BM25 over titles and texts of a corpus, its inverted lists held in memory.

    Passages with equal scores are in the corpus's order; a question without a known term gets the
    corpus's first passages, all with score 0.

    Raises
    ------
    InputError: the corpus has no words.
    """

    name = "bm25"
    score_scale = 1.0

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        documents = terms([f"{passage.title} {passage.text}" for passage in corpus])
        if not any(documents):
            raise InputError(
                f"Corpus {corpus.name!r} has no words for BM25 to index; choose another retriever."
            )
        self._bm25 = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._bm25.index(documents, show_progress=len(corpus) > 100_000 and sys.stderr.isatty())

    def scores(self, question: str) -> np.ndarray:
        """The score of every passage for one question, float32 [N]."""
        return self._bm25.get_scores_from_ids(self._bm25.get_tokens_ids(terms([question])[0]))

    @one_at_a_time
    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The k passages with the highest BM25 score for each question; see `Retriever`."""
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        return [self._top(self.scores(question.text), k) for question in questions]

    def _top(self, scores: np.ndarray, k: int) -> Retrieved:
        k = min(k, len(scores))
        # Take all that reach the k-th best score, so that of equal ones the corpus's first win.
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        candidates = np.flatnonzero(scores >= threshold)
        best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
        passages: tuple[Passage, ...] = tuple(self.corpus[int(position)] for position in best)
        return Retrieved(tuple(p.id for p in passages), scores[best], passages)
