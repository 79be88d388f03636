"""Metrics of answers (SQuAD's) and of retrieval (DPR's)."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ragbook.corpus import Question
from ragbook.corpus.answers import has_answer

if TYPE_CHECKING:
    from ragbook.methods import Answer
    from ragbook.retrieval import Retrieved

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, without the articles a, an, the, and with single
    spaces (Rajpurkar et al. 2016, section 6.1)."""
    text = _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION))
    return " ".join(text.split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Does the prediction equal one of the answers, both normalized? (Rajpurkar et al. 2016)"""
    normalized = normalize_answer(prediction)
    return any(normalized == normalize_answer(answer) for answer in answers)


def contains(prediction: str, answers: Sequence[str]) -> bool:
    """Does one of the answers stand in the prediction, as whole words in a row, both normalized?

    The lenient score of answers that say more than the answer: the accuracy of Mallen et al. (2023,
    section 3) and the best-subspan accuracy of Liu et al. (2023, section 2.1). An answer that is
    empty when normalized stands only in a prediction that is.
    """
    words = normalize_answer(prediction).split()
    return any(
        stand_in_a_row(expected, words) if expected else not words
        for expected in (normalize_answer(answer).split() for answer in answers)
    )


def stand_in_a_row(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether the words `few` stand in `many`, one directly after the other."""
    starts = range(len(many) - len(few) + 1)
    return any(list(many[i : i + len(few)]) == list(few) for i in starts)


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The harmonic mean of precision and recall of normalized words (as bags), for the answer that
    fits best (Rajpurkar et al. 2016). If either text is empty when normalized, it is 1.0 if both
    are, else 0.0, as in SQuAD 2.0."""
    return max((_f1(prediction, answer) for answer in answers), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    predicted, expected = normalize_answer(prediction).split(), normalize_answer(answer).split()
    if not predicted or not expected:
        return float(predicted == expected)
    common = (Counter(predicted) & Counter(expected)).total()
    # 2PR / (P + R) with P = common / |predicted| and R = common / |expected|.
    return 2 * common / (len(predicted) + len(expected))


def is_hit(question: Question, retrieved: "Retrieved", k: int) -> bool:
    """Is a passage that answers the question among the first `k` retrieved?

    If its gold passage is known, only that one counts, or each piece of it; otherwise every passage
    whose text (without the title) holds an answer.
    """
    if question.gold_passages:
        return not set(question.gold_passages).isdisjoint(retrieved.ids[:k])
    return any(has_answer(passage.text, question.answers) for passage in retrieved.passages[:k])


def recall_at_k(questions: Sequence[Question], retrieved: Sequence["Retrieved"], k: int) -> float:
    """The share of questions, in 0..1, with a hit among the first `k` passages: :func:`is_hit`.
    `retrieved[i]` belongs to `questions[i]`. ValueError if there are no questions."""
    if not questions:
        raise ValueError("recall is not defined without questions")
    return sum(hits_at_k(questions, retrieved, k)) / len(questions)


def hits_at_k(
    questions: Sequence[Question], retrieved: Sequence["Retrieved"], k: int
) -> list[float]:
    """1.0 for each question with a hit among the first `k` passages (:func:`is_hit`), else 0.0."""
    return [float(is_hit(q, found, k)) for q, found in zip(questions, retrieved, strict=True)]


def exact_matches(answers: Sequence["Answer"], questions: Sequence[Question]) -> list[float]:
    """1.0 for each answer that is one of its question's (:func:`exact_match`), else 0.0."""
    return [float(exact_match(a.text, q.answers)) for a, q in zip(answers, questions, strict=True)]
