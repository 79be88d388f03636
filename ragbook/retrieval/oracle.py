"""The oracle: it puts the gold passage first, to test methods with perfect retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ragbook.corpus import Passage, Question
from ragbook.corpus.gold import gold_passage
from ragbook.errors import InputError
from ragbook.retrieval.base import Retrieved, Retriever

if TYPE_CHECKING:
    from ragbook.corpus import Corpus


class OracleRetriever:
    """The question's gold passage, then the other passages of a fallback retriever in its order.

    The others keep the fallback's scores. The gold passage has the fallback's score too, if it was
    found, but at least `best + 1 / score_scale`, where `best` is the highest score of the others:
    its log prior is higher by at least 1 nat.

    Parameters
    ----------
    corpus: holds every gold passage.
    fallback: a retriever over the same corpus, for the passages after the first.
    """

    name = "oracle"

    def __init__(self, corpus: Corpus, fallback: Retriever) -> None:
        self.corpus = corpus
        self.fallback = fallback
        self.score_scale = fallback.score_scale

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The gold passage and the fallback's k - 1 best others; see `Retriever`.

        Raises
        ------
        InputError: a question has no gold passage, or one that the corpus does not have.
        """
        gold = [self.gold(question) for question in questions]
        return [
            self._gold_first(passage, found)
            for passage, found in zip(gold, self.fallback.retrieve(questions, k), strict=True)
        ]

    def gold(self, question: Question) -> Passage:
        """The passage that is put first: the gold one, or of a document's pieces the first with an
        answer.

        Raises
        ------
        InputError: the question has no gold passage, or one that the corpus does not have.
        """
        if question.gold_passage is None:
            raise InputError(
                f"The question {question.text!r} names no gold passage, which the oracle needs; "
                "use another retriever or questions with gold passages."
            )
        passage = gold_passage(self.corpus, question)
        if passage is None:
            raise InputError(
                f"The gold passage {question.gold_passage!r} of the question {question.text!r} is "
                f"not in corpus {self.corpus.name!r}; use the corpus that belongs to the questions."
            )
        return passage

    def _gold_first(self, gold: Passage, found: Retrieved) -> Retrieved:
        places = [i for i, passage_id in enumerate(found.ids) if passage_id != gold.id]
        own = [i for i, passage_id in enumerate(found.ids) if passage_id == gold.id]
        others = places[: len(found.ids) - 1]
        least = [found.scores[i] + 1 / self.score_scale for i in places[:1]]
        score = max([found.scores[i] for i in own] + least)
        return Retrieved(
            (gold.id, *(found.ids[i] for i in others)),
            np.array([score, *found.scores[others]], dtype=np.float32),
            (gold, *(found.passages[i] for i in others)),
        )
