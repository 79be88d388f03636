"""Documents as a corpus: a folder, or one file, of Markdown, reStructuredText, text, HTML and PDF.

Each document is cut into passages whose ids name its file and the place where the passage begins:
``guide/setup.md#L12`` a line, ``page.html#P5`` a block of an HTML page's readable text, and
``paper.pdf#page=3`` a page. A second passage that begins at the same place is ``#L12.2``.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from ragbook.corpus.articles import TITLE
from ragbook.corpus.files import read_lines
from ragbook.corpus.markdown import read_markdown
from ragbook.corpus.pdf import MissingPypdf, read_pdf
from ragbook.corpus.readable import Readable, Unreadable
from ragbook.corpus.restructured import read_restructured
from ragbook.corpus.splitting import Split, pieces, section_title
from ragbook.corpus.types import Passage
from ragbook.corpus.webpage import decode_page, read_page
from ragbook.errors import InputError
from ragbook.printable import printable

KINDS: dict[str, tuple[str, ...]] = {
    "markdown": (".md", ".markdown"),
    "rst": (".rst",),
    "text": (".txt",),
    "html": (".html", ".htm", ".xhtml"),
    "pdf": (".pdf",),
}
KINDS["documents"] = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)
"""The kinds of documents, and how their names end; ``documents`` are those of any kind."""
SKIPPED = ("node_modules", "__pycache__")
"""Folders that are not looked into, beside those whose names begin with a full stop."""

_CALLED = {"markdown": "Markdown", "rst": "reStructuredText", "html": "HTML", "pdf": "PDF"}
_MOST_SHOWN = 3  # reasons


def is_documents(path: Path) -> bool:
    """Whether a path is a folder of documents, or one document by its name. A folder that holds an
    index of this package or a data set that Hugging Face's library saved is none, nor is a ``.txt``
    file that is a passage file by its first line."""
    if path.is_dir():
        return not (_has(path, "dataset_dict.json") or is_index(path)) and not (
            _has(path, "dataset_info.json") and _has(path, "state.json")
        )
    if not path.is_file() or kind_of(path) is None:
        return False
    return path.suffix.lower() != ".txt" or not _is_passage_file(path)


def kind_of(path: Path) -> str | None:
    """The kind of document that a file is by its name; None for another file."""
    suffix = path.suffix.lower()
    return next((kind for kind, suffixes in KINDS.items() if suffix in suffixes), None)


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def is_index(folder: Path) -> bool:
    """Whether a folder is one of this package's own, such as an index, by its manifest."""
    try:
        with open(folder / "manifest.json", "rb") as file:
            return re.search(rb'"kind": "ragbook ', file.read(1 << 20)) is not None
    except OSError:
        return False


def _is_passage_file(path: Path) -> bool:
    """Whether a file is WikiText's articles, JSON lines or DPR's table, which have readers."""
    try:
        first = next(islice((line for line in read_lines(path) if line.strip()), 1), "")
    except InputError:
        return False
    if first.rstrip("\r\n").split("\t") == ["id", "text", "title"]:
        return True
    return re.match(r'\s*\{\s*"', first) is not None or TITLE.fullmatch(first) is not None


@dataclass
class Document:
    """A document's readable text.

    Attributes
    ----------
    kind: one of `KINDS`.
    title: its own title, or its file's name without suffix.
    mark: what stands before the number of a place: ``L``, ``P`` or ``page=``.
    parts: the texts that are cut each by itself: the whole text, or each page of a PDF file.
    faults: what could not be read of it, as far as `parts` has been read.
    """

    kind: str
    title: str
    mark: str
    parts: Iterable[Readable]
    faults: list[str] = field(default_factory=list)

    def passages(self, name: str, split: Split) -> Iterator[Passage]:
        """The passages that its parts are cut into; `name` is what their ids begin with."""
        begun: Counter[int] = Counter()
        for part in self.parts:
            for piece in pieces(part.text, split, part.headings):
                place = part.place(piece.start)
                begun[place] += 1
                again = f".{begun[place]}" if begun[place] > 1 else ""
                title = section_title(self.title, piece.headings)
                yield Passage(f"{name}#{self.mark}{place}{again}", title, piece.text)


def read_document(path: Path, kind: str | None = None) -> Document:
    """A file's readable text.

    Parameters
    ----------
    kind: one of `KINDS`; by default what the file's name or its beginning says.

    Raises
    ------
    Unreadable: it is not what its name says, or not in UTF-8.
    MissingPypdf: it is a PDF file and pypdf is not installed.
    """
    if kind in (None, "documents"):
        kind = kind_of(path) or ("pdf" if _begins_as_pdf(path) else None)
    if kind is None:
        raise Unreadable(f"it is no document, of which the names end in {_suffixes()}")
    if kind == "pdf":
        faults: list[str] = []
        title, pages = read_pdf(path, faults)
        return Document(kind, title.strip() or path.stem, "page=", _parts(pages), faults)
    if kind == "html":
        found = read_page(decode_page(_read_bytes(path)))
    else:
        read = {"markdown": read_markdown, "rst": read_restructured}
        found = read.get(kind, _read_plain)(read_source(path))
    return Document(kind, found.title or path.stem, "P" if kind == "html" else "L", [found])


def _begins_as_pdf(path: Path) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(5) == b"%PDF-"
    return False


def _suffixes(kind: str | None = None) -> str:
    *most, last = KINDS[kind or "documents"]
    return f"{', '.join(most)} or {last}" if most else last


def _parts(pages: Iterator[tuple[int, str]]) -> Iterator[Readable]:
    for number, text in pages:
        part = Readable()
        part.add(number, text)
        yield part


def _read_plain(text: str) -> Readable:
    out, blank = Readable(), True
    for number, line in enumerate(text.split("\n"), 1):
        out.add(number, line, block=blank)
        blank = not line.strip()
    return out


def read_source(path: Path) -> str:
    """The text of a text file, without its byte order mark and NUL characters, whose lines, however
    they ended, end in line feeds. Raises Unreadable if it is not UTF-8."""
    data = _read_bytes(path).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return data.decode("utf-8-sig").replace("\0", "")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(
            f"line {line:,}: byte {data[error.start]:#04x} is not UTF-8; convert the file to UTF-8"
        ) from None


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"it cannot be opened ({error.strerror or error})") from None


def read_documents(
    path: Path,
    split: Split,
    told: Callable[[str], None] | None = None,
    kind: str | None = None,
) -> Iterator[Passage]:
    """The passages of a folder's documents, in the order of their paths in it, or of one document.

    Only one document is in memory at a time. Hidden files and folders and those of `SKIPPED` are
    not looked at, and links are followed only to files within the folder. A document that cannot be
    read, or has no text, is left out.

    Parameters
    ----------
    told: called at the end with one sentence about how many files were read and left out.
    kind: one of `KINDS`, as which one document is read whatever its name is; of a folder, the files
        whose names say so.

    Raises
    ------
    InputError: there is nothing to read, or the one document cannot be read.
    """
    count = _Count(path)
    if not path.exists():
        raise InputError(f"There is no file or folder {path}; check its name.")
    alone = not path.is_dir()
    suffixes = KINDS[kind or "documents"]
    files = iter([(path.name, path)]) if alone else _files(path, suffixes, count)
    for name, file in files:
        try:
            yield from _document(name, file, kind if alone else None, split, count)
        except MissingPypdf as missing:
            if alone:
                raise
            count.leave_out(name, str(missing))
        except Unreadable as fault:
            if alone:
                raise InputError(f"{path}: {fault}.") from None
            count.leave_out(name, str(fault))
    if not count.read:
        raise InputError(
            f"{path} holds no document that can be read{count.left_out(': ')}; give a folder with "
            f"files whose names end in {_suffixes(kind)}."
        )
    if told is not None:
        told(count.sentence())


def _document(
    name: str, file: Path, kind: str | None, split: Split, count: _Count
) -> Iterator[Passage]:
    """The passages of one document, which is counted at the end."""
    if any(letter < " " or letter == "\x7f" for letter in name):
        raise Unreadable("its name holds a control character; rename it")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise Unreadable("its name is not UTF-8; rename it") from None
    document, empty = read_document(file, kind), True
    for passage in document.passages(name, split):
        empty = False
        yield passage
    count.pages += [f"{name}, {fault}" for fault in document.faults]
    if empty:
        scanned = "; its pages may be pictures of text" if document.kind == "pdf" else ""
        raise Unreadable(f"it has no text{scanned}")
    count.read[document.kind] += 1


def _files(root: Path, suffixes: tuple[str, ...], count: _Count) -> Iterator[tuple[str, Path]]:
    """(relative path with ``/``, path) of the files whose names end so, in the first's order."""
    inside = root.resolve()
    stack = [_entries(root, "", count)]
    while stack:
        entry, name = next(stack[-1], (None, ""))
        if entry is None:
            stack.pop()
        elif entry.is_dir(follow_symlinks=False):
            stack.append(_entries(Path(entry.path), f"{name}/", count))
        elif entry.is_symlink() and not _leads_to_file_in(inside, Path(entry.path)):
            count.links += 1
        elif not entry.is_file():
            continue
        elif (suffix := Path(name).suffix.lower()) in suffixes:
            yield name, Path(entry.path)
        else:
            count.others[suffix or "no suffix"] += 1


def _leads_to_file_in(folder: Path, link: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # it leads nowhere, or in a circle
        return False
    return target.is_file() and target.is_relative_to(folder)


def _entries(
    folder: Path, above: str, count: _Count
) -> Iterator[tuple[os.DirEntry[str] | None, str]]:
    """What is in a folder, sorted so that the paths of all files in it and below are."""
    try:
        with os.scandir(folder) as found:
            entries = [e for e in found if e.name[0] != "." and e.name not in SKIPPED]
    except OSError as error:
        count.leave_out(above, f"it cannot be opened ({error.strerror or error})")
        return
    entries.sort(key=lambda e: f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name)
    for entry in entries:
        yield entry, above + entry.name


class _Count:
    """How many files of a folder were read and left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.read: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.links = 0
        self.pages: list[str] = []
        self.faults: list[str] = []
        self.without = 0

    def leave_out(self, name: str, reason: str) -> None:
        """Count a document that is left out."""
        self.without += 1
        if len(self.faults) < _MOST_SHOWN:
            self.faults.append(f"{name}: {reason}")

    def sentence(self) -> str:
        """What was read and what was left out."""
        kinds = ", ".join(f"{n:,} {_CALLED.get(kind, kind)}" for kind, n in self.read.most_common())
        read = f"{self.path}: {_several(self.read.total(), 'document')} read ({kinds})"
        return printable(f"{read}{self.left_out('; left out: ')}")

    def left_out(self, beginning: str) -> str:
        """What was left out, after `beginning`; empty if nothing was."""
        found = []
        if self.without:
            found.append(
                f"{_several(self.without, 'document')} ({_some(self.faults, self.without)})"
            )
        if self.pages:
            found.append(
                f"{_several(len(self.pages), 'page')} ({_some(self.pages, len(self.pages))})"
            )
        if self.others:
            suffixes = [f"{suffix} {n:,}" for suffix, n in self.others.most_common()]
            total = _several(self.others.total(), "file")
            found.append(f"{total} of other kinds ({_some(suffixes, len(suffixes))})")
        if self.links:
            found.append(_several(self.links, "link"))
        return beginning + ", ".join(found) if found else ""


def _some(texts: list[str], count: int) -> str:
    return "; ".join([*texts[:_MOST_SHOWN], *(["..."] if count > _MOST_SHOWN else [])])


def _several(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
