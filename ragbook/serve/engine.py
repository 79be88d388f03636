"""One question through all methods: a stream of what is found, each part as soon as it is known.

Each method answers as `ragbook ask` lets it. The answers of all come first and what is behind them
after: by then pairs and passages are encoded, and leave-one-out and the probability of a typed
answer cost little.
"""

from __future__ import annotations

import copy
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.methods.base import Answer, Method
from ragbook.methods.cuts import found_by_part, notes_of, read_short
from ragbook.retrieval import Retriever
from ragbook.serve import details
from ragbook.serve.asking import Ask
from ragbook.serve.changed import ChangedRetriever

Event = dict[str, Any]
"""A part of what is found, as JSON; ``event`` says what it is: ``passages``, ``answer``,
``detail``, ``failed`` or ``end``."""


@dataclass(frozen=True)
class Defaults:
    """The settings that are used where a request says nothing."""

    k: int
    retriever: str
    beams: int
    free: bool
    lam: float | None
    temperature: float | None


class Engine:
    """The methods over several retrievers, of which each question chooses one.

    Parameters
    ----------
    retrievers: by name; the first is the default.
    load: the methods over a retriever, as :func:`ragbook.methods.load` gives them. It is called
        once for each retriever, as with some a method searches with a question tower of its own.
    k: how many passages are retrieved where a question does not say it.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Retriever],
        load: Callable[[Retriever], Sequence[Method]],
        k: int = 5,
    ) -> None:
        self.retrievers = dict(retrievers)
        loaded = {name: load(retriever) for name, retriever in self.retrievers.items()}
        first = next(iter(loaded))
        self.methods = list(loaded[first])
        self._searching: dict[str, list[Retriever | None]] = {
            name: [method.retriever for method in methods] for name, methods in loaded.items()
        }
        settings: dict[str, Any] = {}
        for method in self.methods:
            for name in ("beams", "verbatim", "lam", "temperature"):
                if hasattr(method, name):
                    settings[name] = getattr(method, name)
        self.defaults = Defaults(
            k,
            first,
            settings.get("beams", 1),
            not settings.get("verbatim", True),
            settings.get("lam"),
            settings.get("temperature"),
        )

    def check(self, ask: Ask) -> None:
        """Raise InputError for a retriever that there is none of."""
        if ask.retriever is not None and ask.retriever not in self.retrievers:
            raise InputError(
                f"There is no retriever {ask.retriever!r}; choose from "
                f"{', '.join(self.retrievers)}."
            )

    def methods_for(self, ask: Ask) -> tuple[ChangedRetriever, list[Method]]:
        """The retriever and the methods with the settings and passages of a question. They share
        models and memories with the loaded ones, which stay as they are."""
        name = ask.retriever or self.defaults.retriever
        plain = ChangedRetriever(self.retrievers[name], ask.struck, ask.edited)
        wrapped = {id(plain.retriever): plain}
        out = []
        for method, retriever in zip(self.methods, self._searching[name], strict=True):
            changed: Any = copy.copy(method)
            if retriever is not None:
                if id(retriever) not in wrapped:
                    wrapped[id(retriever)] = ChangedRetriever(retriever, ask.struck, ask.edited)
                changed.retriever = wrapped[id(retriever)]
            free = None if ask.free is None else not ask.free
            wanted = {
                "beams": ask.beams,
                "verbatim": free,
                "lam": ask.lam,
                "temperature": ask.temperature,
            }
            for key, value in wanted.items():
                if value is not None and hasattr(method, key):
                    setattr(changed, key, value)
            out.append(changed)
        return plain, out

    def answers(self, ask: Ask) -> Iterator[Event]:
        """The events of a question. Whoever stops taking them stops the work at the next one."""
        began = time.perf_counter()
        question, k = Question(ask.question, ()), ask.k or self.defaults.k
        plain, methods = self.methods_for(ask)
        told = _Passages(question, k)
        yield told.event(plain)
        answered: list[tuple[Method, Answer]] = []
        for method in methods:
            try:
                new = told.new(method)
                answer = method.answer([question], k)[0]
                event = _answer(method, question, answer, k)
            except Exception as error:
                yield _failed(method, error)
                continue
            if new is not None:
                yield new
            yield event
            answered.append((method, answer))
        for method, answer in answered:
            try:
                event = {
                    **details.behind(method, question, answer, k),
                    **details.without_each(method, question, answer, k),
                    **details.typed(method, question, ask.typed, k),
                }
            except Exception as error:
                yield _failed(method, error)
                continue
            if event:
                yield {"event": "detail", "method": method.name, **event}
        for method in methods:  # notes of answers that were cut would pile up
            if (notes := notes_of(method)) is not None:
                notes.take_answers()
                notes.take_unread()
        cut = read_short(methods) | found_by_part(self.retrievers.values(), told.passages)
        shown = {passage.id for passage in told.passages}
        cut = {passage_id: words for passage_id, words in cut.items() if passage_id in shown}
        yield {"event": "end", "seconds": time.perf_counter() - began, "cut": cut}


class _Passages:
    """Which passages a person has been shown, each once."""

    def __init__(self, question: Question, k: int) -> None:
        self.question, self.k = question, k
        self.passages: list[Passage] = []  # as the methods read them
        self._ids: set[str] = set()

    def new(self, method: Method) -> Event | None:
        """What a method finds besides; None if it is nothing."""
        found = method.retriever
        event = self.event(found) if isinstance(found, ChangedRetriever) else None
        return event if event and event["passages"] else None

    def event(self, retriever: ChangedRetriever) -> Event:
        """The passages that a retriever finds and that were not shown yet."""
        (found,) = retriever.whole([self.question], self.k)
        new = [passage for passage in found.passages if passage.id not in self._ids]
        self._ids.update(passage.id for passage in new)
        self.passages += [retriever.read(passage) for passage in new]
        rows = [
            {
                "id": passage.id,
                "title": passage.title,
                "text": retriever.read(passage).text,
                "own_text": passage.text,
                "struck": passage.id in retriever.struck,
                "edited": passage.id in retriever.edited,
            }
            for passage in new
        ]
        return {"event": "passages", "passages": rows}


def _answer(method: Method, question: Question, answer: Answer, k: int) -> Event:
    """The event of an answer: as `ragbook ask --json` has it, and more."""
    before = details.prior(method, question, k)
    weights = [
        {"passage_id": one.passage_id, "weight": one.weight, "prior": before.get(one.passage_id)}
        for one in answer.evidence
    ]
    event = {
        "event": "answer",
        "method": method.name,
        "text": answer.text,
        "log_prob": details.finite(answer.log_prob),
        "seconds": answer.seconds,
        "truncated": answer.truncated,
        "evidence": weights,
    }
    if answer.token_evidence is not None:
        event["tokens"] = [
            {
                "token": one.token,
                "weights": {each.passage_id: each.weight for each in one.evidence},
            }
            for one in answer.token_evidence
        ]
    return event


def _failed(method: Method, error: Exception) -> Event:
    """What a person is told of a method that did not answer; of a fault of the program the rest is
    written to standard error."""
    if isinstance(error, InputError):
        sentence = str(error)
    else:
        traceback.print_exception(error, file=sys.stderr)
        sentence = "It has failed; the server's messages say why."
    return {"event": "failed", "method": method.name, "sentence": sentence}
