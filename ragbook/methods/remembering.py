"""What methods have retrieved and read, kept while the same questions are asked once more.

A comparison asks a method for its answers, then for the likelihood of the right ones, then for what
each passage matters, and then asks the next method, which may have the same retriever and the same
reader. Within `remembering` retrieval, reading and the decoder's keys and values of what was read
are computed for the first of these and used by the others. One result is kept at a time, so it
takes no more memory than making it did. So that the methods' times stay comparable, a method that
uses what another has made counts the time that this took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ragbook.corpus import Question

T = TypeVar("T")


@dataclass
class _Made:
    """What was made, of what, in how many seconds, and by which methods it was used."""

    key: object
    value: Any
    seconds: float
    users: set[int]


class Remembers:
    """A method that can keep what it made of its last questions. By default it keeps nothing: its
    models may be trained between two calls."""

    _last: list[_Made] | None = None  # at most one, shared by all methods of a block
    _saved = 0.0  # the seconds that others took for what this method has used

    def _once(
        self,
        what: object,
        questions: Sequence[Question],
        k: int,
        make: Callable[[], T],
        later: Callable[[T], float] = lambda _: 0.0,
        builds_on_last: bool = False,
    ) -> T:
        """What `make` returns for these questions, or has returned for them at the last call.

        Parameters
        ----------
        what: tells apart what methods make; those with the same `what` make the same.
        later: the seconds of work that were put off when it was made, and have been done since.
        builds_on_last: `make` uses what is kept, which is therefore dropped only afterwards.
        """
        if self._last is None:
            return make()
        key = (what, tuple(questions), k)
        if not self._last or self._last[0].key != key:
            if not builds_on_last:
                self._last.clear()  # before the next is made, which may be as large
            began = self._clock()
            made = make()
            self._last[:] = [_Made(key, made, self._clock() - began, {id(self)})]
        last = self._last[0]
        if id(self) not in last.users:
            last.users.add(id(self))
            self._saved += last.seconds + later(last.value)
        return last.value

    def _clock(self) -> float:
        """A time in seconds, as if the method had made itself what it used of others; only
        differences have a meaning."""
        return time.perf_counter() + self._saved


@contextmanager
def remembering(methods: Iterable[object]) -> Iterator[None]:
    """Within the block, in which no model may change, the methods keep what they made of the last
    questions that one of them was asked."""
    able = [method for method in methods if isinstance(method, Remembers)]
    last: list[_Made] = []
    for method in able:
        method._last = last
    try:
        yield
    finally:
        for method in able:
            method._last = None
