"""Pages that show the documents which passages were cut from, each passage at its place.

A browser opens a Markdown or text file at no line, and many open no local PDF file at a page. So
each document becomes one static page, whose address ends in the place: a line, a block of a page's
readable text, or a page. What is at that place is marked. There is no page of a document that is
gone, and no link to a place at which the passage no longer stands.
"""

from __future__ import annotations

import hashlib
import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragbook.corpus import Passage
from ragbook.corpus.documents import Document, read_document, read_source
from ragbook.corpus.gold import Place, place_of
from ragbook.corpus.readable import Unreadable
from ragbook.errors import InputError
from ragbook.files import write_text

FOLDER = "documents"
"""Where the pages are, beside the explorer's own."""

_STYLE = """
body { max-width: 60rem; margin: 1rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
ol { padding-left: 4rem; }
li { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; scroll-margin: 4rem; }
li::marker { color: GrayText; font-size: 0.8rem; }
"""
_MARK = "{ background: light-dark(#fff3b0, #5c4a00); }"


def write_documents(
    out: Path, passages: Iterable[Passage], root: Path
) -> tuple[dict[str, str], list[str]]:
    """Write the pages of the documents that passages were cut from.

    Parameters
    ----------
    out: the explorer's folder; the pages are in its folder `FOLDER`.
    passages: those whose ids name file and place (:mod:`ragbook.corpus.documents`) can be linked.
    root: the folder of the documents; the files' names in the ids are relative to it.

    Returns
    -------
    For each passage that stands where its id says, by its id, its address relative to `out`; and
    the names of the pages' files.
    """
    cited: dict[str, list[tuple[Passage, Place]]] = {}
    for passage in passages:
        if (place := place_of(passage.id)) is not None:
            cited.setdefault(place.document, []).append((passage, place))
    links: dict[str, str] = {}
    names: list[str] = []
    for name in sorted(cited):
        try:
            file = _file(root, name)
            document = None if file is None else read_document(file)
        except (Unreadable, InputError, OSError, ValueError):  # gone or changed since
            continue
        if file is None or document is None:
            continue
        own = [(passage, place) for passage, place in cited[name] if place.mark == document.mark]
        page = _Page(name, file, document)
        found = {passage.id: page.find(passage, place.number) for passage, place in own}
        anchors = {passage.id: f"{place.mark}{place.number}" for passage, place in own}
        if not any(found.values()):
            continue
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
        write_text(out / FOLDER / page.name, page.markup())
        names.append(page.name)
        for passage_id, there in found.items():
            if there:
                links[passage_id] = f"{FOLDER}/{page.name}#{anchors[passage_id]}"
    return links, names


def _file(root: Path, name: str) -> Path | None:
    """The file of that relative name in a folder; None if there is none, or it leads out."""
    if name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        return None
    inside, file = root.resolve(), root / name
    return file if file.is_file() and file.resolve().is_relative_to(inside) else None


def page_name(document: str) -> str:
    """The name of a document's page: letters that any address can have, and a hash."""
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", document)[-60:].strip(".-")
    return f"{plain}-{hashlib.sha256(document.encode('utf-8', 'replace')).hexdigest()[:8]}.html"


@dataclass
class _Part:
    """A text that was cut by itself: its words, and the place of each."""

    words: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)


class _Page:
    """One document, where its passages stand, and what is shown of it."""

    def __init__(self, name: str, file: Path, document: Document) -> None:
        self.title, self.mark, self.name = name, document.mark, page_name(name)
        self.address = file.absolute().as_uri()
        self.rows: list[tuple[int, str]] = []  # (place, text)
        self.parts: dict[int, _Part] = {}  # by each place in it
        self.ends: dict[int, int] = {}  # the last place of what begins at a place
        for readable in document.parts:
            part, rows = _Part(), dict[int, list[str]]()
            for place, text in readable.lines():
                words = text.split()
                part.words += words
                part.places += [place] * len(words)
                self.parts[place] = part
                rows.setdefault(place, []).append(text)
            self.rows += [(place, "\n".join(texts)) for place, texts in rows.items()]
        if self.mark == "L":  # its lines as they are
            self.rows = list(enumerate(read_source(file).split("\n"), 1))

    def find(self, passage: Passage, place: int) -> bool:
        """Whether the passage's words stand at the place; where they end is noted."""
        wanted, part = passage.text.split(), self.parts.get(place)
        if part is None or not wanted:
            return False
        for at in _positions(part.places, place):
            end = at + len(wanted)
            if part.words[at] == wanted[0] and part.words[at:end] == wanted:
                self.ends[place] = max(self.ends.get(place, 0), part.places[end - 1])
                return True
        return False

    def markup(self) -> str:
        """The page, without scripts; all texts and names are escaped."""
        title, address = html.escape(self.title), html.escape(self.address)
        marks = [f"li:target {_MARK}"]
        for place, end in sorted(self.ends.items()):
            if end > place:  # rows are numbered from 1 without gaps
                marks.append(f'[id="{self.mark}{place}"]:target ~ :nth-child(-n+{end}) {_MARK}')
        rows = "".join(
            f'<li id="{self.mark}{place}" value="{place}">{self._opener(place)}'
            f"{html.escape(text)}</li>\n"
            for place, text in self.rows
        )
        return (
            '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n'
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f'<title>{title}</title>\n<link rel="icon" href="data:,">\n'
            f"<style>{_STYLE}{chr(10).join(marks)}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
            f'<p><a href="{address}">Open the file itself</a></p>\n<ol>\n{rows}</ol>\n'
            "</body>\n</html>\n"
        )

    def _opener(self, place: int) -> str:
        """A link that opens the file at that page, if it has pages."""
        if self.mark != "page=":
            return ""
        return f'<a href="{html.escape(self.address)}#page={place}">page {place}</a>\n'


def _positions(places: Sequence[int], place: int) -> range:
    """The positions of the words at a place, of places in ascending order."""
    return range(bisect_left(places, place), bisect_right(places, place))
