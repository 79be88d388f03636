"""What a comparison keeps of each question: one record, as JSON, made by a batch of questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ragbook.corpus import Passage, Question
from ragbook.evaluation.errors import error_kind
from ragbook.evaluation.kept import Record
from ragbook.evaluation.metrics import contains, exact_match, f1, is_hit
from ragbook.methods.cuts import found_by_part, notes_of, read_short

if TYPE_CHECKING:
    from tqdm import tqdm

    from ragbook.methods.base import Answer, Method
    from ragbook.retrieval import Retrieved, Retriever


def batch_records(
    methods: Sequence[Method],
    retrievers: Sequence[Retriever],
    batch: Sequence[Question],
    first: int,
    k: int,
    measured: int,
    bar: tqdm[Any],
) -> list[Record]:
    """What is stored of each question of a batch, as JSON: its line of ``predictions.jsonl``, what
    the results count of each method (``scored``), and which passages were cut.

    `first` is the number of the batch's first question; how much each passage matters is measured
    on the first `measured` questions of the batch.
    """
    found: dict[int, list[Retrieved]] = {}
    for retriever in retrievers:
        bar.set_description(f"{retriever.name} retrieval")
        found[id(retriever)] = retriever.retrieve(batch, k)
        bar.update(len(batch))
    answered = [question for question in batch if question.answers]
    records = [
        {"line": _line(question, first + i, found, i), "scored": {}, "cut": {}}
        for i, question in enumerate(batch)
    ]
    for method in methods:
        bar.set_description(method.name)
        notes = notes_of(method)
        if notes is not None:
            notes.take_unread()
        given = method.answer(batch, k)
        unread = {} if notes is None else notes.take_unread()
        if notes is not None:
            notes.take_answers()
        log_probs = _log_probs(method, batch, answered, k)
        cut = 0 if notes is None else notes.take_answers()
        bar.update(len(batch))
        read = found.get(id(method.retriever))
        part = batch[:measured]
        fall = _falls(method, part, given[:measured], read[:measured], k) if part and read else None
        for i, (question, answer) in enumerate(zip(batch, given, strict=True)):
            own = fall[i] if fall and i < len(fall) else None
            records[i]["line"]["methods"][method.name] = _prediction(
                question, answer, read[i] if read else None, own
            )
            records[i]["scored"][method.name] = {
                "hit": is_hit(question, read[i], k) if read and _can_hit(question) else None,
                "log_prob": log_probs[i],
                "seconds": answer.seconds,
                "truncated": answer.truncated,
                "fall": own,
                "answers_cut": cut if i == 0 else 0,
                "unread": unread.get(question.text, 0),
            }
    shown = {p.id: p for rows in found.values() for one in rows for p in one.passages}
    records[0]["cut"] = {
        "encoder": found_by_part(retrievers, list(shown.values())),
        "reader": read_short(methods),
    }
    return records


def _log_probs(
    method: Method, batch: Sequence[Question], answered: Sequence[Question], k: int
) -> list[float | None]:
    """log p of each question's first answer, None where none is known; `answered` are those of the
    batch with an answer, which are all that the method is asked."""
    if not answered:
        return [None] * len(batch)
    golden = [question.answers[0] for question in answered]
    found = iter(map(float, method.log_prob(answered, golden, k)))
    return [next(found) if question.answers else None for question in batch]


def _can_hit(question: Question) -> bool:
    """Whether it is known what makes a passage answer the question. That a corpus lacks what the
    gold ids name does not make a passage wrong, nor another one right that holds the answer."""
    return question.placed != () and bool(question.answers or question.gold_passages)


def _line(
    question: Question, number: int, found: dict[int, list[Retrieved]], i: int
) -> dict[str, Any]:
    """A line of ``predictions.jsonl`` without the methods' parts: the i-th question of a batch,
    whose number among all questions, from 0, is given, and what the first retriever found for it.

    ``gold_passages`` is there where they are others than the one ``gold_passage``: several, the
    pieces of a document, or none, as the corpus lacks it. ``gold_rank`` is the rank, from 1, of the
    first of them that was retrieved; None if none was, or none is known.
    """
    retrieved = next(iter(found.values()))[i] if found else None
    gold = question.gold_passages
    named = () if question.gold_passage is None else (question.gold_passage,)
    ids = () if retrieved is None else retrieved.ids
    return {
        "id": str(number + 1) if question.id is None else question.id,
        "question": question.text,
        "answers": list(question.answers),
        "gold_passage": question.gold_passage,
        **({"gold_passages": list(gold)} if gold != named else {}),
        "gold_rank": next((rank for rank, one in enumerate(ids, 1) if one in gold), None),
        "retrieved": [
            {"passage_id": passage_id, "score": round(score, 6)}
            for passage_id, score in (
                zip(retrieved.ids, retrieved.scores.tolist(), strict=True) if retrieved else ()
            )
        ],
        "methods": {},
    }


def _falls(
    method: Method,
    batch: Sequence[Question],
    given: Sequence[Answer],
    read: Sequence[Retrieved],
    k: int,
) -> list[dict[str, float]] | None:
    """How much less likely each answer becomes without each passage, by the passage's id; nothing
    for a question with one passage, None for a method that cannot say it."""
    measure = getattr(method, "leave_one_out", None)
    if measure is None:
        return None
    several = [i for i, found in enumerate(read) if len(found.ids) > 1]
    out: list[dict[str, float]] = [{} for _ in batch]
    values = measure([batch[i] for i in several], [given[i].text for i in several], k)
    for i, row in zip(several, values.tolist(), strict=True):
        out[i] = dict(zip(read[i].ids, row, strict=False))
    return out


def _prediction(
    question: Question,
    answer: Answer,
    retrieved: Retrieved | None,
    fall: dict[str, float] | None,
) -> dict[str, Any]:
    """One method's part of a line of ``predictions.jsonl``; the scores and the kind of error are
    None where no answer is known."""

    def loo(passage_id: str) -> dict[str, float | None]:
        if fall is None:
            return {}
        value = fall.get(passage_id, math.inf)
        return {"loo": round(value, 4) if math.isfinite(value) else None}

    passages = None if retrieved is None else retrieved.passages
    by_token = {}
    if answer.token_evidence is not None:
        by_token["token_evidence"] = [
            {
                "token": one.token,
                # Many, so with few digits.
                "weights": {each.passage_id: round(each.weight, 4) for each in one.evidence},
            }
            for one in answer.token_evidence
        ]
    return {
        "text": answer.text,
        # JSON has no infinity: None stands for an answer of probability 0.
        "log_prob": answer.log_prob if math.isfinite(answer.log_prob) else None,
        **_judged(answer.text, question, passages),
        "evidence": [
            {
                "passage_id": evidence.passage_id,
                "weight": round(evidence.weight, 6),
                **loo(evidence.passage_id),
            }
            for evidence in answer.evidence
        ],
        **by_token,
    }


def _judged(text: str, question: Question, passages: Sequence[Passage] | None) -> dict[str, Any]:
    """The scores of an answer and the kind of error."""
    if not question.answers:
        return dict.fromkeys(("em", "f1", "contains", "error"))
    return {
        "em": int(exact_match(text, question.answers)),
        "f1": f1(text, question.answers),
        "contains": int(contains(text, question.answers)),
        "error": error_kind(text, question, passages),
    }
