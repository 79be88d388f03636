"""The question that a chapter follows step by step, found by a rule: a set of questions changes,
and with it what stands at a place in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.evaluation.metrics import exact_match
from ragbook.methods import Method
from ragbook.retrieval import Retrieved, Retriever

BATCH = 64


def example(
    retriever: Retriever,
    questions: Sequence[Question],
    tokenizer: Any,
    reading: Method | None = None,
    k: int = 5,
    least: int = 3,
    apart: Sequence[Method] = (),
) -> Question:
    """The first question whose gold passage is one of the k best and not the very best, so that the
    retriever leaves something to a reader; whose answer has at least `least` tokens, so that these
    can come from different passages; that `reading`, if it is given, answers rightly from one
    passage, which is the gold one if it reads with an `OracleRetriever`; and that some of the
    methods `apart`, if there are any, answer rightly from k passages and some do not, each of which
    also finds its own answer more probable than the right one.

    Raises
    ------
    InputError: there is no such question.
    """
    for at in range(0, len(questions), BATCH):
        batch = questions[at : at + BATCH]
        for question, found in zip(
            batch, retriever.retrieve(batch, k), strict=True
        ):
            if question.gold_passage not in found.ids[1:k]:
                continue
            tokens = tokenizer(question.answers[0], add_special_tokens=False)[
                "input_ids"
            ]
            if len(tokens) < least:
                continue
            if reading is not None and not _right(reading, question, 1):
                continue
            if not apart or _apart(apart, question, k):
                return question
    raise InputError(
        f"no question has its gold passage among the {k} best, a better one before it, and an "
        f"answer of {least} tokens that can be read from it"
        + (" and that some methods find and some do not" if apart else "")
        + "; give more questions"
    )


def told_twice(
    retriever: Retriever,
    questions: Sequence[Question],
    tells: Callable[[Question, Retrieved, int], bool],
    k: int = 5,
) -> tuple[Question, Retrieved]:
    """The first question with its gold passage among the k best where at least two of these tell the
    answer, and what was retrieved for it.

    Args:
        tells: whether the passage at a place of what was retrieved tells the question's answer.

    Raises
    ------
    InputError: there is no such question.
    """
    for question in questions:
        (found,) = retriever.retrieve([question], k)
        if question.gold_passage in found.ids:
            telling = [
                z for z in range(len(found.ids)) if tells(question, found, z)
            ]
            if len(telling) > 1:
                return question, found
    raise InputError(
        f"no question has two passages among the {k} best that tell its answer; give more questions"
    )


def _apart(methods: Sequence[Method], question: Question, k: int) -> bool:
    wrong = [method for method in methods if not _right(method, question, k)]
    return 0 < len(wrong) < len(methods) and all(
        _preferred(method, question, k) for method in wrong
    )


def _preferred(method: Method, question: Question, k: int) -> bool:
    """Whether a method finds its own answer more probable than the right one."""
    (answer,) = method.answer([question], k)
    own, right = (
        method.log_prob([question], [text], k).item()
        for text in (answer.text, question.answers[0])
    )
    return own > right


def _right(reading: Method, question: Question, k: int) -> bool:
    return exact_match(reading.answer([question], k)[0].text, question.answers)
