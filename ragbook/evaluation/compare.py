"""The controlled comparison: the same questions through every method, scored the same way."""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ragbook.corpus import Question, QuestionSet
from ragbook.corpus.gold import missing, placed
from ragbook.errors import InputError
from ragbook.evaluation.comparison import Comparison
from ragbook.evaluation.errors import counts, error_kind
from ragbook.evaluation.metrics import contains, exact_match, f1, is_hit
from ragbook.evaluation.statistics import bootstrap_intervals, paired_tests
from ragbook.version import __version__

if TYPE_CHECKING:
    from ragbook.index import PassageIndex
    from ragbook.methods.base import Answer, Method
    from ragbook.retrieval import Retrieved

_BATCH = 16  # questions given to a method at a time
_SCORES = ("em", "f1", "contains")


def compare(
    methods: Sequence["Method"],
    questions: QuestionSet,
    k: int = 5,
    seed: int = 0,
    progress: bool = True,
    index: "PassageIndex | None" = None,
    leave_one_out: bool | int = False,
) -> Comparison:
    """Every method answers every question from k passages.

    `seed` is that of the bootstrap and of the permutation test. `index` is the passage index to
    name in the results; without it, it is the one that a method's retriever searches. With
    `progress`, a progress bar is drawn on standard error if that is a terminal.

    In the results, ``verbatim`` says whether a generative method's answers are restricted to the
    passages' words; it is None for the others. Where some gold answers have probability 0 under a
    method (REALM cannot extract what was not retrieved), its ``answer_nll`` is None, and
    ``answer_nll_finite`` and ``answer_nll_finite_n`` give the mean and the number of the others.
    ``truncated`` is the number of a generative method's answers that were closed at its
    `max_length`; None for the others.

    With `leave_one_out`, every method that reads passages also says how much less likely its own
    answer becomes without each of them (:mod:`ragbook.methods.leave_one_out`): ``loo`` beside each
    passage's weight, in nats, None where it is infinite or where a single passage was found; and
    ``leave_one_out_accuracy``, the share of the questions with a known gold passage on which
    leaving out that passage costs more than leaving out any other. It takes some more time, which
    ``seconds_per_question`` does not count; a number measures it on so many of the first questions,
    ``leave_one_out_n``.

    ``gold_missing`` is the number of questions whose gold id means no passage of the corpus, nor
    pieces of one (:mod:`ragbook.corpus.gold`); they count as questions without a known gold
    passage. It is None where the corpus is not known.

    Raises InputError if there is no method, no question, a question without answers, two methods
    of one name, k < 1, or k < 2 with `leave_one_out`.
    """
    names = [method.name for method in methods]
    if not names:
        raise InputError("There is no method to compare; name at least one.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The method {twice!r} is given twice; name each method once.")
    if not questions:
        raise InputError(f"The question set {questions.name!r} is empty; give at least 1 question.")
    for question in questions:
        if not question.answers:
            raise InputError(f"The question {question.text!r} has no gold answer; give it one.")
    if k < 1:
        raise InputError(f"k, the number of passages, must be at least 1, not {k}.")
    if leave_one_out and k < 2:
        raise InputError("A single passage cannot be left out; retrieve at least 2 with k.")

    passages = _passages_of(methods, index)
    if passages is not None:
        questions = placed(questions, passages)
    measured = len(questions) if leave_one_out is True else min(int(leave_one_out), len(questions))
    retrievers = {id(m.retriever): m.retriever for m in methods if m.retriever is not None}
    total = (len(retrievers) + len(methods)) * len(questions)
    hits: dict[int, list[bool]] = {key: [] for key in retrievers}
    answers: dict[str, list[Answer]] = {name: [] for name in names}
    log_probs: dict[str, list[float]] = {name: [] for name in names}
    falls: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    predictions: list[dict[str, Any]] = []
    with tqdm(total=total, unit="question", disable=None if progress else True) as bar:
        # All methods take one batch before the next, so that they can share encoded pairs.
        for batch in _batches(questions):
            found: dict[int, list[Retrieved]] = {}
            for key, retriever in retrievers.items():
                bar.set_description(f"{retriever.name} retrieval")
                found[key] = retriever.retrieve(batch, k)
                hits[key] += [is_hit(q, r, k) for q, r in zip(batch, found[key], strict=True)]
                bar.update(len(batch))
            first = [question.answers[0] for question in batch]
            lines = [_line(question, found, i) for i, question in enumerate(batch)]
            for method in methods:
                bar.set_description(method.name)
                given = method.answer(batch, k)
                log_probs[method.name] += map(float, method.log_prob(batch, first, k))
                bar.update(len(batch))
                answers[method.name] += given
                read = found.get(id(method.retriever))
                part = batch[: max(0, measured - len(predictions))]
                here = len(part)
                fall = _falls(method, part, given[:here], read[:here], k) if part and read else None
                falls[method.name] += fall or []
                for i, (question, answer) in enumerate(zip(batch, given, strict=True)):
                    lines[i]["methods"][method.name] = _prediction(
                        question,
                        answer,
                        read[i] if read else None,
                        fall[i] if fall and i < len(fall) else None,
                    )
            predictions += lines

    scores = {
        (name, metric): np.array([line["methods"][name][metric] for line in predictions], float)
        for name in names
        for metric in _SCORES
    }
    bounds = bootstrap_intervals(np.stack(list(scores.values()), axis=1), seed=seed)
    intervals = dict(zip(scores, bounds.tolist(), strict=True))
    results = {
        "ragbook": __version__,
        "index": _index_entry(methods, index),
        "questions": {
            "name": questions.name,
            "split": questions.split,
            "n": len(questions),
            "sha256": questions.sha256,
        },
        "k": k,
        "seed": seed,
        "gold_missing": None if passages is None else len(missing(questions)),
        "methods": {
            method.name: {
                "em": float(scores[method.name, "em"].mean()),
                "f1": float(scores[method.name, "f1"].mean()),
                "contains": float(scores[method.name, "contains"].mean()),
                "recall_at_k": (
                    None
                    if method.retriever is None
                    else sum(hits[id(method.retriever)]) / len(questions)
                ),
                **_answer_nll(method.name, log_probs[method.name]),
                "evidence_accuracy": _evidence_accuracy(questions, answers[method.name]),
                **(
                    {
                        "leave_one_out_accuracy": _loo_accuracy(
                            questions[:measured], falls[method.name]
                        ),
                        "leave_one_out_n": measured,
                    }
                    if measured
                    else {}
                ),
                "seconds_per_question": (
                    math.fsum(answer.seconds for answer in answers[method.name]) / len(questions)
                ),
                "ci95": {metric: intervals[method.name, metric] for metric in _SCORES},
                "truncated": (
                    sum(answer.truncated for answer in answers[method.name])
                    if hasattr(method, "max_length")
                    else None
                ),
                "parameters": int(method.parameters),
                "errors": counts(line["methods"][method.name]["error"] for line in predictions),
                "verbatim": getattr(method, "verbatim", None),
                **_where(method),
            }
            for method in methods
        },
        "paired": _paired(names, scores, seed),
    }
    return Comparison(results, predictions)


def _where(method: "Method") -> dict[str, str | None]:
    """The device and precision of a method's model; None where it does not show one."""
    holder = getattr(method, "reader", None) or getattr(method, "lm", None)
    model = getattr(holder, "model", None) or getattr(
        getattr(holder, "pairs", None), "encoder", None
    )
    if model is None:
        return {"device": None, "precision": None}
    from ragbook.models.devices import where

    device, precision = where(model)
    return {"device": device, "precision": precision}


def _batches(questions: QuestionSet) -> list[Sequence[Question]]:
    return [questions[i : i + _BATCH] for i in range(0, len(questions), _BATCH)]


def _line(question: Question, found: dict[int, list["Retrieved"]], i: int) -> dict[str, Any]:
    """A line of ``predictions.jsonl`` without the methods' parts: the i-th question of a batch, and
    what the first retriever found for it."""
    retrieved = next(iter(found.values()))[i] if found else None
    return {
        "question": question.text,
        "answers": list(question.answers),
        "gold_passage": question.gold_passage,
        "retrieved": [
            {"passage_id": passage_id, "score": round(score, 6)}
            for passage_id, score in (
                zip(retrieved.ids, retrieved.scores.tolist(), strict=True) if retrieved else ()
            )
        ],
        "methods": {},
    }


def _falls(
    method: "Method",
    batch: Sequence[Question],
    given: Sequence["Answer"],
    read: Sequence["Retrieved"],
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
    answer: "Answer",
    retrieved: "Retrieved | None",
    fall: dict[str, float] | None,
) -> dict[str, Any]:
    """One method's part of a line of ``predictions.jsonl``."""

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
        "em": int(exact_match(answer.text, question.answers)),
        "f1": f1(answer.text, question.answers),
        "contains": int(contains(answer.text, question.answers)),
        "error": error_kind(answer.text, question, passages),
        "evidence": [
            {
                "passage_id": evidence.passage_id,
                "weight": evidence.weight,
                **loo(evidence.passage_id),
            }
            for evidence in answer.evidence
        ],
        **by_token,
    }


def _answer_nll(name: str, log_probs: Sequence[float]) -> dict[str, float | int | None]:
    """The mean of -log p, nats an answer; see `compare` for answers of probability 0."""
    if any(math.isnan(value) or value == math.inf for value in log_probs):
        raise ValueError(f"the method {name!r} gave a log-probability that is NaN or +infinity")
    finite = [-value for value in log_probs if value > -math.inf]
    mean = math.fsum(finite) / len(finite) if finite else None
    if len(finite) == len(log_probs):
        return {"answer_nll": mean}
    return {"answer_nll": None, "answer_nll_finite": mean, "answer_nll_finite_n": len(finite)}


def _evidence_accuracy(questions: QuestionSet, answers: Sequence["Answer"]) -> float | None:
    """The share of the questions with a known gold passage on which the heaviest evidence is that
    passage. None without such questions and for a method that relies on no passages."""
    with_gold = [
        (question.gold_passages, answer.evidence)
        for question, answer in zip(questions, answers, strict=True)
        if question.gold_passages
    ]
    if not with_gold or not any(answer.evidence for answer in answers):
        return None
    heaviest = (
        max(evidence, key=lambda e: e.weight).passage_id in gold if evidence else False
        for gold, evidence in with_gold
    )
    return sum(heaviest) / len(with_gold)


def _loo_accuracy(questions: Sequence[Question], falls: Sequence[dict[str, float]]) -> float | None:
    """The share of the questions with a known gold passage on which the answer loses more without
    that passage than without any other. None without such questions and for a method that has not
    said what its answers lose."""
    with_gold = [
        (question.gold_passages, fall)
        for question, fall in zip(questions, falls, strict=False)
        if question.gold_passages
    ]
    if not with_gold:
        return None
    most = (
        any(own in fall for own in gold)
        and all(
            max(fall[own] for own in gold if own in fall) > value
            for other, value in fall.items()
            if other not in gold
        )
        for gold, fall in with_gold
    )
    return sum(most) / len(with_gold)


def _paired(
    names: Sequence[str], scores: dict[tuple[str, str], np.ndarray], seed: int
) -> list[dict[str, Any]]:
    """Every pair of methods on every score."""
    pairs = [(a, b, metric) for metric in _SCORES for a, b in combinations(names, 2)]
    if not pairs:
        return []
    differences = np.stack([scores[a, m] - scores[b, m] for a, b, m in pairs], axis=1)
    return [
        {
            "a": a,
            "b": b,
            "metric": metric,
            "difference": test.difference,
            "ci95": list(test.ci95),
            "p": test.p,
        }
        for (a, b, metric), test in zip(pairs, paired_tests(differences, seed=seed), strict=True)
    ]


def _passages_of(methods: Sequence["Method"], index: "PassageIndex | None") -> Any:
    """The passages that the methods search; None where they are not known."""
    retrievers = [method.retriever for method in methods]
    retrievers += [part for one in retrievers for part in getattr(one, "retrievers", ())]
    for holder in (index, *retrievers):
        for one in (getattr(holder, "index", None), holder):
            corpus = getattr(one, "corpus", None)
            if hasattr(corpus, "ids"):
                return corpus
    return None


def _index_entry(
    methods: Sequence["Method"], index: "PassageIndex | None"
) -> dict[str, Any] | None:
    """The entry of `results.json` about the passages; None where no index is known."""
    for method in methods:
        if index is None:
            index = getattr(method.retriever, "index", None)
    if index is None:
        return None
    return {
        "digest": index.digest,
        "passages": index.manifest["corpus"]["passages"],
        "encoder": index.manifest["encoder"]["id"],
    }
