"""What is wrong with an answer, as one word: the same eight for every method.

The order matters, as the first that fits is taken: whether the answer is right; whether it is a
gold answer with words missing or words too many; whether it could have been found at all; and,
where it could, from where its words come instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ragbook.corpus import Passage, Question
from ragbook.corpus.answers import has_answer
from ragbook.evaluation.metrics import contains, exact_match, normalize_answer, stand_in_a_row

MEANINGS = {
    "exact": "a gold answer",
    "empty": "nothing but articles and punctuation",
    "cut": "a part of a gold answer",
    "long": "a gold answer with more words around it",
    "not-retrieved": "no retrieved passage answers the question",
    "same-passage": "other words of a passage that does",
    "other-passage": "words of another retrieved passage",
    "not-in-passages": "words of no passage that the method read",
}
"""The kinds, in the order in which they are tried, and what each says of an answer."""

NAMES = tuple(MEANINGS)

LABELS = {name: name.replace("-", " ") for name in NAMES}
"""The kinds as the heads of tables and the legends of figures write them."""


def error_kind(prediction: str, question: Question, passages: Sequence[Passage] | None) -> str:
    """The first of `NAMES` that fits an answer. Texts are normalised as for exact match.

    * `exact`: it matches a gold answer exactly.
    * `empty`: nothing is left of it.
    * `cut`: its words are a proper run of a gold answer's words; or a gold answer begins with it
      and goes on, whatever the spaces (`Koh-i` of Koh-i-Noor).
    * `long`: a gold answer's words are a proper run of its words.
    * `not-retrieved`: the gold passage is not among the passages; where none is known, no passage's
      text holds a gold answer.
    * `same-passage`: its words stand in the gold passage, text or title; where none is known, in a
      passage whose text holds a gold answer.
    * `other-passage`: its words stand in another of the passages.
    * `not-in-passages`: its words stand in none of them.

    Parameters
    ----------
    passages: what was retrieved for the question; None for a method that reads no passages, whose
        wrong answers are `empty`, `cut`, `long` or `not-in-passages`.
    """
    words = normalize_answer(prediction).split()
    gold = [normalize_answer(answer).split() for answer in question.answers]
    if exact_match(prediction, question.answers):
        return "exact"
    if not words:
        return "empty"
    if any(_is_cut(words, answer) for answer in gold):
        return "cut"
    if any(answer and stand_in_a_row(answer, words) for answer in gold):
        return "long"
    if passages is None:
        return "not-in-passages"
    answering = [passage for passage in passages if _answers(passage, question)]
    if not answering:
        return "not-retrieved"
    if any(_holds(passage, prediction) for passage in answering):
        return "same-passage"
    if any(_holds(passage, prediction) for passage in passages):
        return "other-passage"
    return "not-in-passages"


def counts(kinds: Iterable[str | None]) -> dict[str, int]:
    """How often each kind occurs, all eight of `NAMES` in their order; None, for a question without
    known answers, is not counted."""
    found = dict.fromkeys(NAMES, 0)
    for kind in kinds:
        if kind is not None:
            found[kind] += 1
    return found


def _is_cut(words: Sequence[str], answer: Sequence[str]) -> bool:
    """Whether `words`, which are not all of the answer, are a run of it or its beginning."""
    whole, part = "".join(answer), "".join(words)
    return stand_in_a_row(words, answer) or (whole != part and whole.startswith(part))


def _answers(passage: Passage, question: Question) -> bool:
    """Whether the passage is the gold one or, where none is known, holds a gold answer."""
    if question.gold_passages:
        return passage.id in question.gold_passages
    return has_answer(passage.text, question.answers)


def _holds(passage: Passage, prediction: str) -> bool:
    """Whether the words of an answer stand in a passage.

    Normalising joins what punctuation parts, and so hides "Poland" in "Poland's" and "Koh-i" in
    "Koh-i-Noor"; single tokens find these, but not "Thirty Years War" in "the Thirty Years' War".
    """
    text = f"{passage.title}\n{passage.text}"
    return has_answer(text, [prediction]) or contains(text, [prediction])
