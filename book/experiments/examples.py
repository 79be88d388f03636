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
    methods `apart`, if there are any, answer rightly from k passages and some do not, and each finds
    its own answer more probable than those of the others.

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
            if reading is not None and not _right(reading, question):
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
    """Whether some methods are right and some are not, and each finds its own answer more probable
    than those of the others."""
    said = [method.answer([question], k)[0].text for method in methods]
    if len({exact_match(text, question.answers) for text in said}) < 2:
        return False

    def log_prob(method: Method, text: str) -> float:
        return method.log_prob([question], [text], k).item()

    return all(
        log_prob(method, own) > log_prob(method, other)
        for method, own in zip(methods, said, strict=True)
        for other in said
        if other != own
    )


def _right(reading: Method, question: Question) -> bool:
    return exact_match(reading.answer([question], 1)[0].text, question.answers)
