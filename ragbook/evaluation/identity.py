"""What makes two runs of a comparison the same run: questions, passages, methods, weights; and what
makes two methods' answers comparable: all of these but the methods."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.corpus import QuestionSet
from ragbook.methods.cuts import encoders_of
from ragbook.version import __version__

if TYPE_CHECKING:
    from ragbook.methods.base import Method

SETTINGS = ("beams", "max_length", "length_penalty", "verbatim", "lam", "temperature")
"""What a method may be set to; where nobody sets it, a value that was tuned on dev questions holds,
which may be tuned anew."""


def identity(
    methods: Sequence[Method], questions: QuestionSet, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What is compared, as JSON: where two of these are equal, so are the answers.

    Models count by their weights and not by their names, as a folder may be trained again, and
    methods of your own by their code.

    Parameters
    ----------
    settings: everything else on which answers depend, such as k and the options of the search, as
        JSON.
    """
    known: dict[int, str] = {}
    return {
        "ragbook": __version__,
        "questions": _asked(questions),
        "methods": [_of_method(method, known) for method in methods],
        "settings": dict(settings),
    }


def conditions(
    questions: QuestionSet,
    passages: Any,
    index: Any,
    retriever: Any,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """What all methods of one comparison share, as JSON: methods that were compared under equal
    conditions can stand in one table.

    Parameters
    ----------
    passages: the corpus, by its hash.
    index: the index, by its digest; None if none is searched.
    retriever: what finds the passages, by its name and its encoders' weights.
    settings: everything else on which answers depend, by the option's name, as JSON.
    """
    name, encoders, *_ = _of_retriever(retriever)
    return {
        "ragbook": __version__,
        "passages": passages.sha256,
        "questions": _asked(questions),  # what their gold ids mean depends on the passages
        "retriever": name,
        "encoders": encoders,
        "index": getattr(index, "digest", None),
        **settings,
    }


def _asked(questions: QuestionSet) -> list[Any]:
    asked = hashlib.sha256(repr([(q.id, q.placed) for q in questions]).encode()).hexdigest()
    return [questions.name, questions.split, questions.sha256, asked]


def _of_method(method: Method, known: dict[int, str]) -> list[Any]:
    """A method's name, code, weights and retriever."""
    kind = type(method)
    source = ""
    if not kind.__module__.startswith("ragbook."):
        try:
            source = hashlib.sha256(Path(inspect.getfile(kind)).read_bytes()).hexdigest()
        except (TypeError, OSError):  # a class without a file
            source = kind.__module__
    prompt = getattr(getattr(method, "reader", None), "prompt", None)
    source += repr([getattr(prompt, "template", None), getattr(prompt, "demonstrations", None)])
    source += repr([getattr(method, name, None) for name in SETTINGS])
    holders = [method, getattr(method, "reader", None), getattr(method, "lm", None)]
    return [
        method.name,
        kind.__qualname__,
        source,
        _weights(holders, known),
        _of_retriever(method.retriever),
    ]


def _of_retriever(retriever: Any) -> list[Any]:
    """What a retriever finds passages with: encoders, index, corpus, the run that it gives, the
    cross-encoder that orders them; and all of that of its parts."""
    encoders = encoders_of(retriever)
    hashes = [[getattr(e, "sha256", ""), getattr(e, "query_sha256", "")] for e in encoders]
    passages = getattr(getattr(retriever, "index", None), "digest", None)
    corpus = getattr(getattr(retriever, "corpus", None), "sha256", None)
    run = getattr(retriever, "sha256", None)
    reranker = getattr(getattr(retriever, "reranker", None), "sha256", None)
    how = [getattr(retriever, "depth", None), getattr(retriever, "score_scale", None)]
    parts = [*getattr(retriever, "retrievers", ()), getattr(retriever, "fallback", None)]
    inner = [_of_retriever(part) for part in parts if part is not None]
    name = getattr(retriever, "name", None)
    return [name, hashes, passages, corpus, run, reranker, how, inner]


def _weights(holders: Sequence[Any], known: dict[int, str]) -> list[str]:
    """SHA-256 of the weights of each model that some objects hold; `known` are those that another
    method has too."""
    from torch import nn

    models: list[nn.Module] = []
    for holder in holders:
        for value in vars(holder).values() if hasattr(holder, "__dict__") else ():
            # A reader's encoder of pairs holds some.
            models += [m for m in (value, *_encoders(value)) if isinstance(m, nn.Module)]
    for model in models:
        if id(model) not in known:
            known[id(model)] = _sha256(model.state_dict())
    return [known[id(model)] for model in models]


def _encoders(value: Any) -> Sequence[Any]:
    found = getattr(value, "encoders", ())
    return found if isinstance(found, list) else ()


def _sha256(weights: dict[str, Any]) -> str:
    from torch import uint8

    digest = hashlib.sha256()
    for name, weight in weights.items():
        digest.update(f"{name} {weight.dtype} {weight.device.type} {tuple(weight.shape)}".encode())
        plain = weight.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(uint8).numpy().data)
    return digest.hexdigest()
