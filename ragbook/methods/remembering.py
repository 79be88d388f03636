"""What a method has retrieved and read, kept while the same questions are asked once more.

A comparison asks a method for its answers, then for the likelihood of the right ones, then for what
each passage matters. Within `remembering` retrieval, reading and the decoder's keys and values of
what was read are computed for the first of these and used by the others. One result is kept at a
time, so it takes no more memory than making it did; the first call, whose time counts, makes its
own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from ragbook.corpus import Question

T = TypeVar("T")


class Remembers:
    """A method that can keep what it made of its last questions. By default it keeps nothing: its
    models may be trained between two calls."""

    _last: list[tuple[object, Any]] | None = None  # at most one, shared by all methods of a block

    def _once(self, questions: Sequence[Question], k: int, make: Callable[[], T]) -> T:
        """What `make` returns for these questions, or has returned for them at the last call."""
        if self._last is None:
            return make()
        key = (id(self), tuple(questions), k)
        if self._last and self._last[0][0] == key:
            return self._last[0][1]
        self._last.clear()  # before the next is made, which may be as large
        made = make()
        self._last.append((key, made))
        return made


@contextmanager
def remembering(methods: Iterable[object]) -> Iterator[None]:
    """Within the block, in which no model may change, the methods keep what they made of the last
    questions that one of them was asked."""
    able = [method for method in methods if isinstance(method, Remembers)]
    last: list[tuple[object, Any]] = []
    for method in able:
        method._last = last
    try:
        yield
    finally:
        for method in able:
            method._last = None
