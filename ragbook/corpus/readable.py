"""The readable text of a document, and at which place of its file each part of it stands."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property

from ragbook.corpus.splitting import Heading


class Unreadable(Exception):
    """A document cannot be read, or has no text; the message is the reason, half a sentence."""


class Readable:
    """A text that is put together from lines, each of which knows its place in the file.

    Attributes
    ----------
    title: the document's own title; empty if it names none.
    headings: with their places in the text.
    """

    def __init__(self, title: str = "") -> None:
        self.title = title
        self.headings: list[Heading] = []
        self._lines: list[str] = []
        self._starts, self._places = array("q"), array("q")
        self._length = 0

    def add(self, place: int, text: str, *, block: bool = True, level: int = 0) -> None:
        """Add a line, if it is not blank.

        Parameters
        ----------
        place: the number of the line or block of the file, from 1; never less than the one before.
        block: whether a new block begins, as a paragraph, which a blank line divides from others.
        level: of a heading, from 1.
        """
        text = text.replace("\0", "").strip()
        if not text:
            return
        if self._lines:
            divider = "\n\n" if block else "\n"
            self._lines.append(divider)
            self._length += len(divider)
        self._starts.append(self._length)
        self._places.append(place)
        if level:
            name = " ".join(text.split())
            self.headings.append(Heading(self._length, self._length + len(text), level, name))
        self._lines.append(text)
        self._length += len(text)

    @cached_property
    def text(self) -> str:
        """The whole text; nothing can be added once it was asked for."""
        return "".join(self._lines)

    def lines(self) -> Iterator[tuple[int, str]]:
        """(place, text) of each line that was added."""
        yield from zip(self._places, self._lines[::2], strict=True)

    def place(self, at: int) -> int:
        """The place of the line in which the character `at` of the text stands."""
        return self._places[bisect_right(self._starts, at) - 1]
