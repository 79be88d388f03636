"""What is behind a method's answer, beyond its evidence: what the live page shows under it.

Passages are named by their ids, and tokens by their texts. All numbers are probabilities, except
those called ``loo`` and ``typed``, which are in nats; None stands for an infinite one.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from ragbook.corpus import Question
from ragbook.methods.base import Answer, Method, doc_log_probs
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.knn_lm import KnnLM, interpolate, knn_target_log_prob
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.realm import Realm
from ragbook.models.generator import labels_of
from ragbook.models.sharing import one_at_a_time

SPANS = 10
"""How many of REALM's spans are shown."""
NEIGHBOURS, BEFORE = 3, 12
"""How many neighbours of each token are shown, and how many tokens of each one's context."""


def finite(value: float) -> float | None:
    """The number, or None for what JSON has no number for."""
    return value if math.isfinite(value) else None


def prior(method: Method, question: Question, k: int) -> dict[str, float]:
    """p(z | x) of each passage, by its id, for a method that sums over the passages; nothing for
    the others."""
    if not isinstance(method, (Realm, RagSequence, RagToken)):
        return {}
    (found,) = method.retriever.retrieve([question], k)
    weights = doc_log_probs([found], method.retriever.score_scale)[0].exp()
    return dict(zip(found.ids, weights.tolist(), strict=True))


def behind(method: Method, question: Question, answer: Answer, k: int) -> dict[str, Any]:
    """What a method's kind of answer has behind it: ``tokens`` or ``spans``, or nothing."""
    match method:
        case ClosedBook():
            return {"tokens": _closed_book(method, question, answer.text)}
        case KnnLM():
            return {"tokens": _knn_lm(method, question, answer.text, k)}
        case Realm():
            spans = method.spans(question, k, SPANS)
            named = ("passage_id", "start", "end", "text", "probability")
            return {"spans": [{name: getattr(one, name) for name in named} for one in spans]}
        case _:
            return {}


@one_at_a_time
def _closed_book(method: ClosedBook, question: Question, text: str) -> list[dict[str, Any]]:
    """Each token's probability."""
    labels = labels_of(method.reader, [text])
    each = method.reader.token_log_probs(method.reader.read([question]), labels)[0].exp().tolist()
    tokens = _texts(method.reader, labels[0].tolist())
    return [
        {"token": token, "probability": value}
        for token, value in zip(
            tokens, each, strict=False
        )  # of an answer that is cut, its beginning
    ]


@one_at_a_time
def _knn_lm(method: KnnLM, question: Question, text: str, k: int) -> list[dict[str, Any]]:
    """Each token's probability under the model, its neighbours and the mixture of both, with the
    nearest of the neighbours."""
    (found,) = method.retriever.retrieve([question], k)
    keys, values, source = method.datastore(found)
    tokens = method.lm.answer_ids(text)
    own, distances, hits = method.neighbours(question, tokens, (keys, values, source))
    near = knn_target_log_prob(distances, hits, method.temperature)
    mixed = interpolate(own, near, method.lam)
    weights, at = torch.softmax(-distances / method.temperature, -1).topk(
        min(NEIGHBOURS, len(values))
    )
    first = torch.searchsorted(source, torch.arange(len(found.ids))).tolist()
    numbers = zip(own.exp().tolist(), near.exp().tolist(), mixed.exp().tolist(), strict=True)
    out = []
    for t, (model, memory, both) in enumerate(numbers):
        nearest = []
        for weight, pair in zip(weights[t].tolist(), at[t].tolist(), strict=True):
            passage = int(source[pair])
            context = values[max(first[passage], pair - BEFORE) : pair].tolist()
            nearest.append(
                {
                    "passage_id": found.ids[passage],
                    "before": method.lm.tokenizer.decode(context),
                    "token": _texts(method.lm, [int(values[pair])])[0],
                    "weight": weight,
                    "said": bool(hits[t, pair]),
                }
            )
        token = _texts(method.lm, tokens[t : t + 1])[0]
        numbered = {"model": model, "memory": memory, "probability": both}
        out.append({"token": token, **numbered, "neighbours": nearest})
    return out


def _texts(model: Any, ids: list[int]) -> list[str]:
    """Tokens as texts; that of the end token says so."""
    return ["(end)" if one == model.end else model.tokenizer.decode([one]) for one in ids]


def without_each(method: Method, question: Question, answer: Answer, k: int) -> dict[str, Any]:
    """``loo``: how much less likely the answer is without each passage. Nothing for a method that
    cannot say it, or that read a single passage."""
    measure = getattr(method, "leave_one_out", None)
    if measure is None or method.retriever is None:
        return {}
    (found,) = method.retriever.retrieve([question], k)
    if len(found.ids) < 2:
        return {}
    falls = measure([question], [answer.text], k)[0].tolist()
    return {"loo": {i: finite(fall) for i, fall in zip(found.ids, falls, strict=False)}}


def typed(method: Method, question: Question, text: str, k: int) -> dict[str, Any]:
    """``typed``: log p of an answer that was typed; nothing without one."""
    if not text.strip():
        return {}
    return {"typed": finite(float(method.log_prob([question], [text], k)[0]))}
