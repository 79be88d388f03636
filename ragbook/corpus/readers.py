"""Passages of one's own: a file or folder of any kind that is known, read as a stream.

:mod:`ragbook.corpus.documents` reads what people write (Markdown, HTML, PDF, ...),
:mod:`ragbook.corpus.tables` what programs write (TSV, JSON lines, Parquet, ...) in one of the
:mod:`ragbook.corpus.layouts`, and :mod:`ragbook.corpus.articles` WikiText.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ragbook.corpus import documents, miniwiki
from ragbook.corpus.articles import TITLE, read_articles
from ragbook.corpus.files import bare_name, beginning, first_line, located
from ragbook.corpus.ids import Ids
from ragbook.corpus.layouts import KNOWN, Read, read_layout
from ragbook.corpus.splitting import DEFAULT_SPLIT, Split, cut_passage
from ragbook.corpus.tables import Table, form_of, hub_table, is_saved, open_tables, shards
from ragbook.corpus.types import Corpus, Passage
from ragbook.errors import InputError

FORMATS: dict[str, tuple[str | None, str | None]] = {
    "dpr": ("tsv", "plain"),
    "tsv": ("tsv", None),
    "csv": ("csv", None),
    "jsonl": ("jsonl", None),
    "json": ("json", None),
    "parquet": ("parquet", None),
    "arrow": ("arrow", None),
    "beir": (None, "plain"),
    "pyserini": (None, "contents"),
    "flashrag": (None, "contents"),
    "kilt": (None, "kilt"),
    "langchain": (None, "langchain"),
    "llamaindex": (None, "llamaindex"),
    "wikitext": (None, None),
    **{kind: (None, None) for kind in documents.KINDS},
}
"""The formats that can be named: for each the form of its table, and its layout; None where the
content says it."""

_EXPECTED = (
    "a folder or file of documents (Markdown, reStructuredText, text, HTML, PDF), or passages as "
    "TSV, CSV, JSON lines, Parquet or Arrow (DPR, BEIR, Pyserini, FlashRAG, KILT, LangChain, "
    "LlamaIndex), or articles in WikiText's form"
)
Told = Callable[[str], None]


@dataclass(frozen=True)
class Reading:
    """How passages are read, where their content does not say it.

    Attributes
    ----------
    format: one of `FORMATS`.
    columns: the file's own names of the columns "id", "title" and "text".
    split: how texts are cut into passages; by default documents and whole articles are cut as
        `DEFAULT_SPLIT` says, and what is a passage already stays as it is.
    later: whether only documents are cut, and the rest by who asks, who then must look whether the
        pieces' ids are unique.
    """

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    split: Split | None = None
    later: bool = False

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise InputError(
                f"There is no format {self.format!r} of passages; choose from {', '.join(FORMATS)}."
            )
        if unknown := self.columns.keys() - {"id", "title", "text"}:
            raise InputError(
                f"A passage has no column {min(unknown)!r}; name those for id, title and text."
            )


@dataclass(frozen=True)
class PassageSource:
    """Passages that can be read as a stream.

    Attributes
    ----------
    name: that of the corpus.
    identity: a string that differs if the passages do.
    passages: yields them.
    documents: if they are pieces of documents, whose ids name file and place, the folder that the
        files' names are relative to.
    """

    name: str
    identity: str
    passages: Callable[[], Iterator[Passage]]
    documents: Path | None = None


def load_corpus(
    name_or_path: str | os.PathLike[str],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: Split | None = None,
    told: Told | None = None,
) -> Corpus:
    """The corpus of a name (``"miniwiki"``, ``"miniwiki-2012"`` for its earlier edition), of a file
    or folder of passages or documents, named after it, of ``hf:NAME``, or of standard input, ``-``.

    Parameters
    ----------
    format, columns, split: see `Reading`.
    told: called, when all were read, with one sentence that says how, if that needs a word.

    Raises
    ------
    InputError: there is no such corpus, its format is unknown, a row is malformed, or it holds no
        passage.
    """
    if name_or_path in miniwiki.NAMES:
        return miniwiki.corpus(miniwiki.NAMES[str(name_or_path)])
    source = open_passages(name_or_path, Reading(format, columns or {}, split), told)
    return Corpus(source.name, source.passages(), source.documents)


def read_passages(
    path: str | os.PathLike[str], reading: Reading | None = None, told: Told | None = None
) -> Iterator[Passage]:
    """The passages of a file or folder, one at a time. Only the ids stay in memory, numbers as
    bits, so that all of Wikipedia can be read. Raises InputError as :func:`load_corpus` does, when
    it reaches the fault."""
    return open_passages(path, reading or Reading(), told).passages()


def open_passages(
    spec: str | os.PathLike[str], reading: Reading, told: Told | None = None
) -> PassageSource:
    """The passages that a path, ``hf:NAME`` or ``-`` names, not yet read.

    Raises
    ------
    InputError: there is no such file.
    """
    if str(spec).startswith("hf:"):
        table = hub_table(str(spec))
        identity = f"{spec} {table.fingerprint} {reading}"
        return PassageSource(
            str(spec), identity, lambda: _unique([table], reading, told, str(spec))
        )
    path = located(Path(spec))
    if not os.path.exists(path):
        raise InputError(
            f"There is no file {path} and no corpus of that name; the bundled corpora "
            f"are {' and '.join(map(repr, miniwiki.NAMES))}, and your own can be {_EXPECTED}."
        )
    name = path.resolve().name if path.is_dir() else bare_name(path)
    if path.is_dir():
        path = beir_file(path, "corpus") or path
        if documents.is_index(path):
            raise InputError(f"{path} is an index and no corpus; name it with --index.")
    named = reading.format
    kind = named if named in documents.KINDS else _kind(path) if named is None else None
    if kind is not None and reading.columns:
        raise InputError(f"{path} has no columns; leave --columns out.")
    identity, split = f"{_state(path)} {reading}", reading.split or DEFAULT_SPLIT
    if kind is not None:

        def pieces() -> Iterator[Passage]:
            return documents.read_documents(path, split, told, kind)

        folder = Path(os.path.abspath(path if path.is_dir() else path.parent))
        return PassageSource(name, identity, pieces, folder)
    return PassageSource(name, identity, lambda: _read(path, reading, told))


def _state(path: Path) -> str:
    """A string that differs if a file, or a folder's files, were written since."""
    if path.is_file():
        status = path.stat()
        return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    digest = hashlib.sha256()
    for one in sorted(path.rglob("*")):
        if one.is_file():
            status = one.stat()
            digest.update(
                f"{one} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
            )
    return f"{path.resolve()} {digest.hexdigest()}"


def _read(path: Path, reading: Reading, told: Told | None) -> Iterator[Passage]:
    named = reading.format
    form, layout = FORMATS[named] if named is not None else (None, None)
    if not path.is_dir() and named in (None, "wikitext"):
        first = "" if _is_binary(path) else first_line(path)
        if named or TITLE.fullmatch(first):
            return _articles(path, reading)
        if not first and not _is_binary(path):
            raise InputError(f"{path} is empty; expected {_EXPECTED}.")
        if "<mediawiki" in first:
            raise InputError(
                f"{path} is a MediaWiki dump; cut it into passages with `ragbook corpus build`."
            )
        if form_of(path) is None:
            raise InputError(
                f"The format of {path} is not known; expected {_EXPECTED}; name it with --format."
            )
    known = KNOWN | {own.lower() for own in reading.columns.values()}
    return _unique(open_tables(path, form, known), reading, told, str(path), layout)


def beir_file(folder: Path, name: str) -> Path | None:
    """A file of a folder in BEIR's layout (``corpus.jsonl``, ``queries.jsonl``), plain or
    compressed; None if the folder has none."""
    found = sorted(folder.glob(f"{name}.jsonl*"))
    return found[0] if found and (folder / found[0].name).is_file() else None


def _is_binary(path: Path) -> bool:
    return beginning(path).startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"))


def _kind(path: Path) -> str | None:
    """Which of `documents.KINDS` a file or folder is; None for passages."""
    if path.is_dir():
        return None if is_saved(path) or shards(path) else "documents"
    if documents.is_documents(path):
        return "documents"
    magic = beginning(path, 5)
    if magic == b"%PDF-":
        return "pdf"
    if not magic.lstrip().startswith(b"<"):
        return None
    return "html" if re.match(r"(?i)<(!doctype html|html)\b", first_line(path)) else None


def _articles(path: Path, reading: Reading) -> Iterator[Passage]:
    """WikiText's articles, each one passage if nothing else is said."""
    split = None if reading.later else reading.split
    for _, article in read_articles(path):
        yield from [article] if split is None else cut_passage(article, split)


def _unique(
    tables: list[Table],
    reading: Reading,
    told: Told | None,
    name: str,
    layout: str | None = None,
) -> Iterator[Passage]:
    """The passages of tables, cut where that is asked for, with ids that are unique."""
    seen, count, said = Ids(), 0, ""
    for table in tables:
        read: Read = read_layout(table, layout, reading.columns)
        split = reading.split or (DEFAULT_SPLIT if read.whole else None)
        said = said or (f"{name}: {read.said}{_cut_by(split)}" if read.said else "")
        if split is None or reading.later:
            for number, one in read.passages:
                if not seen.add(one.id):
                    raise _twice(table, number, one)
                count += 1
                yield one
            continue
        for number, passage in read.passages:
            for one in cut_passage(passage, split):
                if not seen.add(one.id):
                    raise _twice(table, number, one)
                count += 1
                yield one
    if not count:
        raise InputError(f"{name} holds no passage; expected {_EXPECTED}.")
    if told is not None and said:
        told(said)


def _twice(table: Table, number: int, passage: Passage) -> InputError:
    return InputError(
        f"{table.where(number)}: the passage id {passage.id!r} is used a second time; ids must be "
        "unique."
    )


def _cut_by(split: Split | None) -> str:
    """How texts are cut, as the end of a sentence."""
    if split is None or split.by == "none":
        return ""
    return f", cut by {split.by} into passages of at most {split.size} words"
