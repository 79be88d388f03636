"""Passage files: the DPR split of Wikipedia (``psgs_w100.tsv``), JSON lines, and articles in
WikiText's form; plain or gzip."""

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from ragbook.corpus import miniwiki
from ragbook.corpus.articles import TITLE, read_articles
from ragbook.corpus.files import (
    bare_name,
    checked_text,
    format_suffix,
    read_lines,
    read_objects,
    read_rows,
    text_field,
)
from ragbook.corpus.ids import Ids
from ragbook.corpus.types import Corpus, Passage
from ragbook.errors import InputError

_FORMATS = (
    "a tab-separated file (.tsv, .tsv.gz) with the header row id, text, title, "
    'JSON lines (.jsonl, .jsonl.gz) with the keys "id", "title" and "text", '
    "or articles in WikiText's form, each under a line ' = Title = '"
)
_HEADER = ["id", "text", "title"]
_Reader = Callable[[Path], Iterator[tuple[int, Passage]]]  # (line, passage)


def load_corpus(name_or_path: str | os.PathLike[str]) -> Corpus:
    """The corpus of a name (``"miniwiki"``, ``"miniwiki-2012"`` for its earlier edition) or of a
    passage file, named after the file.

    Raises InputError if there is no such corpus, the format is unknown, a row is malformed, or
    the file holds no passage.
    """
    if name_or_path in miniwiki.NAMES:
        return miniwiki.corpus(miniwiki.NAMES[str(name_or_path)])
    path = Path(name_or_path)
    if not os.path.exists(path):
        raise InputError(
            f"There is no file {path} and no corpus of that name; the bundled corpora "
            f"are {' and '.join(map(repr, miniwiki.NAMES))}, and a file can be {_FORMATS}."
        )
    return Corpus(bare_name(path), read_passages(path))


def read_passages(path: str | os.PathLike[str]) -> Iterator[Passage]:
    """The passages of a file, one at a time. Only the ids stay in memory, numbers as bits, so that
    all of Wikipedia can be read. Raises InputError as :func:`load_corpus` does, when it reaches the
    fault."""
    path = Path(path)
    read = {".tsv": _read_tsv, ".jsonl": _read_jsonl}.get(format_suffix(path)) or _sniff(path)
    seen, count = Ids(), 0
    for line, passage in read(path):
        if not seen.add(passage.id):
            raise InputError(
                f"{path}, line {line}: the passage id {passage.id!r} is used a second time; ids "
                "must be unique."
            )
        count += 1
        yield passage
    if not count:
        raise InputError(f"{path} holds no passage; expected {_FORMATS}.")


def _sniff(path: Path) -> _Reader:
    """The reader for the first line of a file whose name does not tell the format."""
    first = next(islice((line for line in read_lines(path) if line.strip()), 1), "")
    if first.lstrip().startswith("{"):
        return _read_jsonl
    if first.rstrip("\r\n").split("\t") == _HEADER:
        return _read_tsv
    if TITLE.fullmatch(first):
        return read_articles
    if not first:
        raise InputError(f"{path} is empty; expected {_FORMATS}.")
    if "<mediawiki" in first:
        raise InputError(
            f"{path} is a MediaWiki dump; cut it into passages with `ragbook corpus build`."
        )
    raise InputError(f"The format of {path} is not known; expected {_FORMATS}.")


def _read_tsv(path: Path) -> Iterator[tuple[int, Passage]]:
    rows = read_rows(path)
    for line, header in islice(rows, 1):
        if header != _HEADER:
            raise InputError(
                f"{path}, line {line}: the first row must be the header id, text, title "
                "(separated by tabs), as in DPR's psgs_w100.tsv."
            )
    for line, row in rows:
        where = f"{path}, line {line}"
        if len(row) != 3:
            raise InputError(
                f"{where}: the row has {len(row)} columns; "
                "expected 3 (id, text, title), separated by tabs."
            )
        id, text, title = row
        checked_text(where, "the id", id)
        checked_text(where, "the text", text)
        yield line, Passage(id, title, text)


def _read_jsonl(path: Path) -> Iterator[tuple[int, Passage]]:
    for line, value in read_objects(path):
        where = f"{path}, line {line}"
        passage = Passage(
            id=text_field(where, value, "id"),
            title=text_field(where, value, "title", may_be_empty=True),
            text=text_field(where, value, "text"),
        )
        yield line, passage
