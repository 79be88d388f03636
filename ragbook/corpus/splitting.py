"""How a text is cut into passages: by words, as DPR cut Wikipedia, by sentences or by headings.

Words are separated by white space, in a piece by single spaces. A text that is short enough is left
as it is. A piece knows at which character of the text it begins, so that its place in a document
can be named.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from ragbook.corpus.types import Passage
from ragbook.errors import InputError

WORDS = 100  # in a passage, as DPR cut Wikipedia (Karpukhin et al. 2020, section 4.1)

By = Literal["words", "sentences", "headings", "none"]

_FORMS = "words:N, sentences:N, headings:N or none, where N is the most words of a passage"
_MOST = 10**9
_WORD = re.compile(r"\S+")
_END = re.compile(r"""[.!?…]+["'”’»)\]*_]*$""")
_INITIAL = re.compile(r"""["'“‘«(\[]*[^\W\d_]\.$""")
_ABBREVIATIONS = frozenset((
    "al.", "approx.", "ca.", "cf.", "co.", "corp.", "dr.", "e.g.", "eq.", "fig.", "figs.", "gen.",
    "i.e.", "inc.", "jr.", "lt.", "ltd.", "mr.", "mrs.", "ms.", "mt.", "no.", "nos.", "p.", "pp.",
    "prof.", "rev.", "sec.", "sgt.", "sr.", "st.", "viz.", "vol.", "vs.",
))  # fmt: skip
"""Words that end in a full stop and do not end their sentence, if more follows in its paragraph."""


@dataclass(frozen=True)
class Split:
    """How texts are cut.

    Attributes
    ----------
    by: `words`: pieces of `size` words, the last one shorter. `sentences`: as many whole sentences
        as have no more than `size` words; a longer sentence is cut by words. `headings`: each
        section under a heading; one of more than `size` words is cut by words. `none`: not at all.
    size: the most words of a piece; 0 with `none`.
    overlap: how many words, or with `sentences` how many sentences, a piece repeats of the one
        before it in the same section. Fewer sentences are repeated where no new one would fit in.
    """

    by: By
    size: int
    overlap: int = 0


DEFAULT_SPLIT = Split("words", WORDS)


class Heading(NamedTuple):
    """A heading in a text.

    Attributes
    ----------
    start, end: the characters of the text between which it stands, with its marks if it has any.
    level: 1 for the highest.
    text: its words, without marks.
    """

    start: int
    end: int
    level: int
    text: str


class Piece(NamedTuple):
    """A piece of a text.

    Attributes
    ----------
    text: its words.
    start: the character of the whole text at which it begins.
    headings: those of the section that it belongs to, the highest first; only of pieces that were
        cut by headings.
    """

    text: str
    start: int
    headings: tuple[str, ...] = ()


def parse_split(text: str, overlap: int = 0) -> Split:
    """The way of cutting that a name such as ``words:100`` or ``sentences`` means. Without a number
    the size is `WORDS`.

    Raises
    ------
    InputError: there is no such way, or the overlap is not smaller than the size.
    """
    by, colon, number = text.partition(":")
    if by not in get_args(By) or (by == "none" and colon):
        raise InputError(f"Passages cannot be cut by {text!r}; give {_FORMS}.")
    if colon and not (number.isascii() and number.isdigit() and 1 <= int(number[:12]) <= _MOST):
        raise InputError(f"{text!r} needs a whole number from 1 to {_MOST:,}, as in {by}:{WORDS}.")
    if overlap < 0:
        raise InputError(f"The overlap of passages cannot be less than 0, as {overlap} is.")
    if by == "none":
        if overlap:
            raise InputError(
                "Texts that are not cut have no overlap; leave it out, or give another way of "
                f"cutting than none: {_FORMS}."
            )
        return Split("none", 0)
    size = int(number) if colon else WORDS
    if overlap >= size:
        raise InputError(
            f"An overlap of {overlap:,} is not smaller than the {size:,} words of a passage; give "
            "a smaller one."
        )
    return Split(by, size, overlap)  # type: ignore[arg-type]  # it is one of them


def cut_passage(passage: Passage, split: Split) -> list[Passage]:
    """Cut a passage into pieces with the ids ``<id>-1``, ``<id>-2``, ...; one that is short enough
    is not changed.

    Pieces keep the title; if they are cut by headings, those follow it. Headings of a passage are
    lines that begin with ``#``, as in Markdown.
    """
    found = pieces(passage.text, split, _marked_headings(passage.text))
    if len(found) <= 1:
        return [passage]
    return [
        Passage(f"{passage.id}-{number}", section_title(passage.title, piece.headings), piece.text)
        for number, piece in enumerate(found, 1)
    ]


def section_title(title: str, headings: Sequence[str]) -> str:
    """The title of a section's passages, such as ``Guide: Install: Linux``. A highest heading
    with which the document's title begins is not repeated."""
    below = headings[1:] if headings and title.startswith(headings[0]) else headings
    return ": ".join(part for part in (title, *below) if part)


def pieces(text: str, split: Split, headings: Sequence[Heading] = ()) -> list[Piece]:
    """The pieces of a text, in order; none if it has no words.

    Parameters
    ----------
    headings: the text's headings, in order. They matter only if it is cut by headings: then they
        are no part of the pieces' texts, but for one without any text or further heading under it.
    """
    sections = _sections(text, headings) if split.by == "headings" else [(0, len(text), ())]
    found = []
    for start, end, above in sections:
        words = _Words(text, start, end)
        if not words.count:
            continue
        if split.by == "none" or words.count <= split.size:
            found.append(Piece(text[words.starts[0] : words.ends[-1]], words.starts[0], above))
            continue
        if split.by == "sentences":
            ranges = _packed(list(_sentences(words, split.size)), split)
        else:
            ranges = _windows(words.count, split)
        found += [Piece(words.join(a, b), words.starts[a], above) for a, b in ranges]
    return found


class _Words:
    """Where the words of a part of a text begin and end, as arrays: a text may have millions."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.starts, self.ends = array("q"), array("q")
        for match in _WORD.finditer(text, start, end):
            self.starts.append(match.start())
            self.ends.append(match.end())
        self.count = len(self.starts)

    def __getitem__(self, number: int) -> str:
        return self.text[self.starts[number] : self.ends[number]]

    def join(self, first: int, last: int) -> str:
        """The words from `first` up to, but without, `last`."""
        return " ".join(self.text[self.starts[first] : self.ends[last - 1]].split())


def _windows(count: int, split: Split) -> Iterator[tuple[int, int]]:
    """(first word, word after the last) of pieces of `split.size` words."""
    first = 0
    while True:
        yield first, min(first + split.size, count)
        if first + split.size >= count:
            return
        first += split.size - split.overlap


def _sentences(words: _Words, size: int) -> Iterator[tuple[int, int]]:
    """(first word, word after the last) of each sentence, or of each part of a longer one."""
    first = 0
    for number in range(words.count):
        if number + 1 < words.count and not _ends(words, number):
            continue
        for at in range(first, number + 1, size):
            yield at, min(at + size, number + 1)
        first = number + 1


def _ends(words: _Words, number: int) -> bool:
    """Whether a word that is not the last one ends a sentence, as far as a rule can tell."""
    if words.text.count("\n", words.ends[number], words.starts[number + 1]) > 1:
        return True  # a blank line
    word, following = words[number][-100:], words.text[words.starts[number + 1]]
    if not _END.search(word) or following.islower():
        return False
    return not _INITIAL.match(word) and word.lower().lstrip("\"'“‘«([") not in _ABBREVIATIONS


def _packed(sentences: list[tuple[int, int]], split: Split) -> Iterator[tuple[int, int]]:
    """(first word, word after the last) of pieces that are made of whole sentences."""
    first, done = 0, 0  # the piece's first sentence, and how many sentences earlier pieces have
    while done < len(sentences):
        while sentences[done][1] - sentences[first][0] > split.size:
            first += 1  # what is repeated leaves no room for a new sentence
        last = done
        while (
            last + 1 < len(sentences) and sentences[last + 1][1] - sentences[first][0] <= split.size
        ):
            last += 1
        yield sentences[first][0], sentences[last][1]
        done = last + 1
        first = max(first + 1, done - split.overlap)


def _sections(text: str, headings: Sequence[Heading]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """(start, end, headings above) of the text before the first heading and under each."""
    yield 0, headings[0].start if headings else len(text), ()
    above: list[tuple[int, str]] = []
    for number, heading in enumerate(headings):
        following = headings[number + 1] if number + 1 < len(headings) else None
        end = len(text) if following is None else following.start
        above = [(level, name) for level, name in above if level < heading.level]
        above.append((heading.level, heading.text))
        deeper = following is not None and following.level > heading.level
        names = tuple(name for _, name in above if name)
        if deeper or text[heading.end : end].strip():
            yield heading.end, end, names
        else:
            yield heading.start, heading.end, names


_MARKED = re.compile(r"^ {0,3}(#{1,6})[ \t]+(?=\S)", re.M)
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.M)


def _marked_headings(text: str) -> list[Heading]:
    """The headings of a passage's text: lines that begin with ``#``, but not within code fences."""
    fences = [match.start() for match in _FENCE.finditer(text)]
    found = []
    for match in _MARKED.finditer(text):
        if bisect_left(fences, match.start()) % 2 == 0:
            end = text.find("\n", match.end())
            end = len(text) if end < 0 else end
            name = " ".join(text[match.end() : end].split())
            if name.rstrip("#").endswith(" "):  # a closing row of them
                name = name.rstrip("# ")
            found.append(Heading(match.start(), end, len(match[1]), name))
    return found
