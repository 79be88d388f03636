"""The controlled comparison: the same questions through every method, scored the same way."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ragbook.corpus import Question, QuestionSet
from ragbook.corpus.gold import missing, placed
from ragbook.errors import InputError
from ragbook.evaluation.comparison import Comparison
from ragbook.evaluation.cut import Cut, most
from ragbook.evaluation.errors import counts
from ragbook.evaluation.kept import Kept, Record
from ragbook.evaluation.records import batch_records
from ragbook.evaluation.together import together
from ragbook.methods.remembering import remembering
from ragbook.version import __version__

if TYPE_CHECKING:
    from ragbook.index import PassageIndex
    from ragbook.methods.base import Method

_BATCH = 16  # questions given to a method at a time


def compare(
    methods: Sequence["Method"],
    questions: QuestionSet,
    k: int = 5,
    seed: int = 0,
    progress: bool = True,
    index: "PassageIndex | None" = None,
    leave_one_out: bool | int = False,
    kept: Kept | None = None,
) -> Comparison:
    """Every method answers every question from k passages.

    `seed` is that of the bootstrap and of the permutation test. `index` is the passage index to
    name in the results; without it, it is the one that a method's retriever searches. With
    `progress`, a progress bar is drawn on standard error if that is a terminal.

    A question without known answers is asked like the others and counts for ``agreement``, the
    share of questions on which two methods give the same answer, for ``answered``, the number of a
    method's answers that are not empty, and for its seconds; and, where its gold passage is known,
    for retrieval and evidence. It has no scores: ``em``, ``f1``, ``contains``, ``answer_nll`` and
    ``errors`` are those of the other questions, ``scored`` of them, and the first four None where
    there are no others. ``recall_at_k`` is None where neither an answer nor a gold passage is known
    of any question.

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
    pieces of one (:mod:`ragbook.corpus.gold`); they are left out of ``recall_at_k`` and of what is
    said of evidence (:func:`ragbook.corpus.gold.by_answer` counts passages that hold an answer). It
    is None where the corpus is not known.

    ``cut_passages`` is the number of passages that were longer than what an encoder or a reader
    sees: all of the index, if that knows, and those that were retrieved; ``cut_words`` the most
    words at the end of one that were left out. Where a gold answer is longer than a model's places,
    its beginning is scored, and ``answers_cut`` counts such answers. Where a question's passages do
    not all fit into one prompt (in-context retrieval), ``unread`` says on how many questions how
    many passages were left out: ``{"1": 12, "2": 3}``.

    With `kept` (:func:`ragbook.evaluation.kept.keeping`) answers are written as they are made, and
    those that are there already are not made again.

    Raises InputError if there is no method, no question, two methods of one name, k < 1, or k < 2
    with `leave_one_out`.
    """
    names = [method.name for method in methods]
    if not names:
        raise InputError("There is no method to compare; name at least one.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"The method {twice!r} is given twice; name each method once.")
    if not questions:
        raise InputError(f"The question set {questions.name!r} is empty; give at least 1 question.")
    if k < 1:
        raise InputError(f"k, the number of passages, must be at least 1, not {k}.")
    if leave_one_out and k < 2:
        raise InputError("A single passage cannot be left out; retrieve at least 2 with k.")

    passages = _passages_of(methods, index)
    if passages is not None:
        questions = placed(questions, passages)
    measured = len(questions) if leave_one_out is True else min(int(leave_one_out), len(questions))
    records = [] if kept is None else list(kept.whole_batches(_BATCH, len(questions)))
    retrievers = list(
        {id(m.retriever): m.retriever for m in methods if m.retriever is not None}.values()
    )
    each = len(retrievers) + len(methods)
    bar = tqdm(
        total=each * len(questions),
        initial=each * len(records),
        unit="question",
        disable=None if progress else True,
    )
    with bar, remembering(methods):
        # All methods take one batch before the next, so that they can share encoded pairs.
        for first in range(len(records), len(questions), _BATCH):
            batch, rest = questions[first : first + _BATCH], max(0, measured - first)
            made = batch_records(methods, retrievers, batch, first, k, rest, bar)
            records += made
            if kept is not None:
                kept.add(made)
    predictions = [record["line"] for record in records]

    scores, beside = together(predictions, names, seed)
    cut = _cut(records, _index_of(methods, index))
    results = {
        "ragbook": __version__,
        "index": _index_entry(methods, index),
        "questions": {
            "name": questions.name,
            "split": questions.split,
            "n": len(questions),
            "scored": sum(bool(question.answers) for question in questions),
            "sha256": questions.sha256,
        },
        "k": k,
        "seed": seed,
        **cut.numbers(),
        "gold_missing": None if passages is None else len(missing(questions)),
        "methods": {
            method.name: {
                "em": scores[method.name]["em"],
                "f1": scores[method.name]["f1"],
                "contains": scores[method.name]["contains"],
                "recall_at_k": _recall(_column(records, method.name, "hit")),
                **_answer_nll(method.name, _column(records, method.name, "log_prob")),
                **_answers_cut(records, method.name),
                **_unread(records, method.name),
                "evidence_accuracy": _evidence_accuracy(
                    questions, [line["methods"][method.name]["evidence"] for line in predictions]
                ),
                **(
                    {
                        "leave_one_out_accuracy": _loo_accuracy(
                            questions[:measured],
                            [
                                fall
                                for fall in _column(records[:measured], method.name, "fall")
                                if fall is not None
                            ],
                        ),
                        "leave_one_out_n": measured,
                    }
                    if measured
                    else {}
                ),
                "seconds_per_question": (
                    math.fsum(_column(records, method.name, "seconds")) / len(questions)
                ),
                "ci95": scores[method.name]["ci95"],
                "answered": sum(
                    bool(line["methods"][method.name]["text"].strip()) for line in predictions
                ),
                "truncated": (
                    sum(_column(records, method.name, "truncated"))
                    if hasattr(method, "max_length")
                    else None
                ),
                "parameters": int(method.parameters),
                "errors": counts(line["methods"][method.name]["error"] for line in predictions),
                "verbatim": getattr(method, "verbatim", None),
                "length_penalty": getattr(method, "length_penalty", None),
                **_where(method),
            }
            for method in methods
        },
        **beside,
    }
    return Comparison(results, predictions, {"cut": cut.as_json()})


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


def _column(records: Sequence[Record], name: str, what: str) -> list[Any]:
    """What was scored of a method's answer to each question."""
    return [record["scored"][name][what] for record in records]


def _answers_cut(records: Sequence[Record], name: str) -> dict[str, int]:
    """How many gold answers were longer than a model's places, if there are any."""
    cut = sum(_column(records, name, "answers_cut"))
    return {"answers_cut": cut} if cut else {}


def _unread(records: Sequence[Record], name: str) -> dict[str, dict[str, int]]:
    """On how many questions how many passages did not fit into a method's prompt, if there are
    any."""
    counts = Counter(filter(None, _column(records, name, "unread")))
    return {"unread": {str(left): counts[left] for left in sorted(counts)}} if counts else {}


def _cut(records: Sequence[Record], index: "PassageIndex | None") -> Cut:
    """Which passages were longer than what the encoder or a reader sees. An index knows how many of
    all its passages are."""
    encoder, reader = (
        most(record["cut"].get(found, {}) for record in records) for found in ("encoder", "reader")
    )
    stored = {} if index is None else index.manifest.get("index", {}).get("parameters", {})
    return Cut(encoder, reader, stored.get("cut"))


def _recall(hits: Sequence[bool | None]) -> float | None:
    """The share of the questions of which it is known whether a passage answers them."""
    known = [hit for hit in hits if hit is not None]
    return sum(known) / len(known) if known else None


def _answer_nll(name: str, given: Sequence[float | None]) -> dict[str, float | int | None]:
    """The mean of -log p, nats an answer; see `compare` for answers of probability 0. None is given
    for a question without known answers."""
    log_probs = [value for value in given if value is not None]
    if any(math.isnan(value) or value == math.inf for value in log_probs):
        raise ValueError(f"the method {name!r} gave a log-probability that is NaN or +infinity")
    finite = [-value for value in log_probs if value > -math.inf]
    mean = math.fsum(finite) / len(finite) if finite else None
    if len(finite) == len(log_probs):
        return {"answer_nll": mean}
    return {"answer_nll": None, "answer_nll_finite": mean, "answer_nll_finite_n": len(finite)}


def _evidence_accuracy(
    questions: QuestionSet, evidence: Sequence[Sequence[dict[str, Any]]]
) -> float | None:
    """The share of the questions with a known gold passage on which the heaviest evidence is that
    passage. None without such questions and for a method that relies on no passages."""
    with_gold = [
        (question.gold_passages, own)
        for question, own in zip(questions, evidence, strict=True)
        if question.gold_passages
    ]
    if not with_gold or not any(evidence):
        return None
    heaviest = (
        max(own, key=lambda e: e["weight"])["passage_id"] in gold if own else False
        for gold, own in with_gold
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


def _index_of(methods: Sequence["Method"], index: "PassageIndex | None") -> "PassageIndex | None":
    """The index that is given or that a method's retriever searches; None where there is none."""
    for method in methods:
        if index is None:
            index = getattr(method.retriever, "index", None)
    return index


def _index_entry(
    methods: Sequence["Method"], index: "PassageIndex | None"
) -> dict[str, Any] | None:
    """The entry of `results.json` about the passages; None where no index is known."""
    index = _index_of(methods, index)
    if index is None:
        return None
    return {
        "digest": index.digest,
        "passages": index.manifest["corpus"]["passages"],
        "encoder": index.manifest["encoder"]["id"],
    }
