"""One question traced through six methods, for the diagrams of the book.

`python -m book.experiments.traced_question book/results/traced-question.json`

The question is chosen by a rule from the stored comparison (`chosen`): the first test question
that all six answer correctly although another passage is ranked before its gold passage. Each then
reads its three best passages with the weights of that comparison, each trained by its own objective, and
what it computes on the way to the answer is kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Question, load_corpus, load_questions
from ragbook.errors import InputError
from ragbook.evaluation.metrics import exact_match
from ragbook.files import write_json
from ragbook.index import build_index
from ragbook.methods import load
from ragbook.methods.base import Method, doc_log_probs, posterior
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import (
    KnnLM,
    interpolate,
    knn_target_log_prob,
    passage_mass,
)
from ragbook.methods.rag import (
    RagSequence,
    RagToken,
    sequence_log_prob,
    token_log_prob,
)
from ragbook.methods.realm import Realm, marginal_log_prob
from ragbook.models import load_encoder
from ragbook.models.generator import labels_of
from ragbook.retrieval import DenseRetriever, Retrieved

METHODS = ("in-context", "fid", "rag-token", "rag-sequence", "realm", "knn-lm")
"""In the order in which the sum over passages moves from the input to the output."""

PASSAGES = 3
PREDICTIONS = (
    Path(__file__).resolve().parents[1] / "results" / "predictions.jsonl.gz"
)


def chosen(
    predictions: Iterable[Mapping[str, Any]], passages: int = PASSAGES
) -> Mapping[str, Any]:
    """The first line of a comparison's predictions that all six methods answer correctly and whose
    gold passage is among the first `passages` and not the first.

    Raises:
        InputError: there is no such line.
    """
    for line in predictions:
        ids = [each["passage_id"] for each in line["retrieved"][:passages]]
        right = all(line["methods"][name]["em"] for name in METHODS)
        if right and line["gold_passage"] in ids[1:]:
            return line
    raise InputError(
        "no question is answered correctly by all six methods from a passage that is not ranked "
        "first; the diagrams need another rule"
    )


def trace(methods: Mapping[str, Method], question: Question) -> dict[str, Any]:
    """What each method computes for the first reference answer; probabilities, not logarithms.

    Raises:
        InputError: a method does not answer the question correctly from three passages.
    """
    return {
        "k": PASSAGES,
        "methods": {name: _traced(methods[name], question) for name in METHODS},
    }


def _traced(method: Method, question: Question) -> dict[str, Any]:
    text, answer = (
        method.answer([question], PASSAGES)[0].text,
        question.answers[0],
    )
    if not exact_match(text, question.answers):
        raise InputError(
            f"{method.name} answers {text!r} from {PASSAGES} passages; choose another question"
        )
    assert method.retriever is not None
    (found,) = method.retriever.retrieve([question], PASSAGES)
    log_prior = doc_log_probs([found], method.retriever.score_scale)
    shared = {
        "passages": list(found.ids),
        "prior": _numbers(log_prior[0].exp()),
    }
    match method:
        case RagSequence() | RagToken():
            own = _rag(method, question, found, answer, log_prior)
        case Realm():
            own = _realm(method, question, answer, log_prior)
        case KnnLM():
            own = _knn_lm(method, question, found, answer)
        case FiD() | InContext():
            own = _all_at_once(method, question, found, answer)
        case _:
            raise InputError(f"{method.name} has no diagram")
    whole = _number(method.log_prob([question], [answer], PASSAGES))
    return {**shared, **own, "answer": text, "probability": whole}


def _rag(
    method: RagSequence | RagToken,
    question: Question,
    found: Retrieved,
    answer: str,
    log_prior: Tensor,
) -> dict[str, Any]:
    memory = method.reader.read([question], [found.passages])
    labels = labels_of(method.reader, [answer])
    tokens = method.reader.token_log_probs(memory, labels.expand(PASSAGES, -1))[
        None
    ]
    own = torch.ones_like(labels)
    core = (
        sequence_log_prob if isinstance(method, RagSequence) else token_log_prob
    )
    given = tokens.sum(-1)
    return {
        "tokens": _pieces(method.reader, labels[0, :-1].tolist()),
        "token probabilities": [_numbers(row) for row in tokens[0].exp()],
        "mixture": _numbers(
            torch.logsumexp(tokens + log_prior[..., None], 1)[0].exp()
        ),
        "given passage": _numbers(given[0].exp()),
        "posterior": _numbers(posterior(log_prior, given)[0]),
        "core": _number(core(tokens, log_prior, own)),
    }


def _realm(
    method: Realm, question: Question, answer: str, log_prior: Tensor
) -> dict[str, Any]:
    _, _, strings, _ = method._read([question], PASSAGES)
    ids = method.reader.tokenizer([answer], add_special_tokens=False)[
        "input_ids"
    ]
    given = method._answer_log_probs(strings, [tuple(ids[0])], PASSAGES)
    return {
        "given passage": _numbers(given[0].exp()),
        "posterior": _numbers(posterior(log_prior, given)[0]),
        "core": _number(marginal_log_prob(given, log_prior)),
    }


def _knn_lm(
    method: KnnLM, question: Question, found: Retrieved, answer: str
) -> dict[str, Any]:
    memory, tokens = method.datastore(found), method.lm.answer_ids(answer)
    own, distances, hits = method.neighbours(question, tokens, memory)
    memories = knn_target_log_prob(distances, hits, method.temperature)
    spoken = slice(len(tokens) - 1)
    mass = passage_mass(
        distances[spoken], hits[spoken], memory[2], PASSAGES, method.temperature
    )
    mixed = interpolate(own, memories, method.lam)
    return {
        "tokens": _pieces(method.lm, tokens[:-1]),
        "lambda": method.lam,
        "temperature": method.temperature,
        "pairs": torch.bincount(memory[2], minlength=PASSAGES).tolist(),
        "model": _numbers(own.exp()),
        "memory": _numbers(memories.exp()),
        "mixture": _numbers(mixed.exp()),
        "mass": _numbers(mass),
        "core": _number(mixed.sum()),
    }


def _all_at_once(
    method: FiD | InContext, question: Question, found: Retrieved, answer: str
) -> dict[str, Any]:
    memory = method._read([question], len(found.ids))[1]
    labels = labels_of(method.reader, [answer])
    log_probs = method.reader.token_log_probs(memory, labels)[0]
    return {
        "tokens": _pieces(method.reader, labels[0, :-1].tolist()),
        "token probability": _numbers(log_probs.exp()),
        "attention": _numbers(memory.attention(labels)[0]),
        "core": _number(log_probs.sum()),
    }


def _pieces(model: Any, ids: Sequence[int]) -> list[str]:
    return [*model.tokenizer.convert_ids_to_tokens(list(ids)), "(end)"]


def _number(log_probability: Tensor) -> float:
    (value,) = _numbers(log_probability.reshape(1).exp())
    return value


def _numbers(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Trace the question of the stored comparison and write what was computed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--index", type=Path, default=Path("build/index"))
    given = parser.parse_args(arguments)
    with gzip.open(PREDICTIONS, "rt", encoding="utf-8") as lines:
        line = chosen(map(json.loads, lines))
    questions = {
        question.text: question
        for question in load_questions("miniwiki", "test")
    }
    question = questions[line["question"]]
    corpus, encoder = load_corpus("miniwiki"), load_encoder()
    index = build_index(corpus, given.index, encoder, progress=False)
    methods = {
        m.name: m
        for m in load(METHODS, DenseRetriever(index, encoder), verbatim=True)
    }
    about = {
        "question": question.text,
        "answers": list(question.answers),
        "gold passage": question.gold_passage,
    }
    write_json(given.out, about | trace(methods, question))


if __name__ == "__main__":
    main()
