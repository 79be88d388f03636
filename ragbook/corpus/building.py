"""Builds a passage file from articles or passages of any length.

The file is built in parts of PART articles or passages, in a hidden folder beside it whose name
identifies the source. A killed build goes on after its last complete part. As parts always have the
same bounds, the file does not depend on when a build was killed. Only one part is in memory.
"""

import gzip
import hashlib
import json
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from msgspec import convert
from tqdm import tqdm

from ragbook import manifests
from ragbook.corpus.files import format_suffix
from ragbook.corpus.gold import document_of
from ragbook.corpus.ids import Ids, is_number
from ragbook.corpus.processes import process_pool
from ragbook.corpus.sources import Source
from ragbook.corpus.splitting import DEFAULT_SPLIT, Split, cut_passage
from ragbook.corpus.types import Passage
from ragbook.errors import InputError
from ragbook.files import replace_file, write_json, write_whole
from ragbook.printable import printable

PART = 2_000  # articles of a dump, or passages of any other source
TASK = 20  # articles that a process takes at a time

_T = TypeVar("_T")


def split_passages(passages: Iterable[Passage], split: Split = DEFAULT_SPLIT) -> Iterator[Passage]:
    """:func:`ragbook.corpus.splitting.cut_passage` of all the passages of a source, in order.

    Raises InputError if another passage has, or may have, the same id as a piece.
    """
    return (piece for piece, _ in _split(passages, split))


_Placed = tuple[Passage, str | None]  # with the id of what it is a piece of, if it is one


def _split(passages: Iterable[Passage], split: Split) -> Iterator[_Placed]:
    seen, numbers_cut = Ids(), Ids()
    for passage in passages:
        pieces = cut_passage(passage, split)
        if is_number(passage.id):
            # To save memory, ids of pieces of numbered passages are not stored: for "12-3" only
            # "12" is.
            clashes = [piece.id for piece in pieces if piece.id in seen]
            if not seen.add(passage.id):
                clashes.append(passage.id)
            if len(pieces) > 1:
                numbers_cut.add(passage.id)
        else:
            clashes = [piece.id for piece in pieces if not seen.add(piece.id)]
            owner, _, number = passage.id.rpartition("-")
            if is_number(owner) and is_number(number) and owner in numbers_cut:
                clashes.append(passage.id)
        if clashes:
            raise InputError(
                f"Cutting the text of passage {passage.id!r} gives the id {clashes[0]!r} a "
                "second time; rename one of the two in the source."
            )
        yield from _placed(passage, pieces)


def _placed(passage: Passage, pieces: list[Passage]) -> list[_Placed]:
    return [(piece, passage.id if len(pieces) > 1 else None) for piece in pieces]


@dataclass(frozen=True)
class LeftOut:
    """An article without a passage because of a fault of its own: its title, and what was wrong."""

    title: str
    reason: str


def build_passages(
    source: Source,
    out: Path,
    processes: int = 1,
    split: Split = DEFAULT_SPLIT,
    progress: bool = True,
    left_out: Callable[[LeftOut], None] | None = None,
) -> int:
    """Write a source's passages as JSON lines (``.jsonl`` or ``.jsonl.gz``); returns their number.

    The file gets its name only when it is complete. The same source gives the same bytes, with any
    number of processes, and however often the build was killed and started again.

    Parameters
    ----------
    out: the file; an existing one is replaced.
    processes: number of processes for the articles of a dump, whose wikitext takes most of the
        time.
    split: how the articles or passages are cut.
    left_out: called at the end for each article that could not be read, in the source's order.

    Raises
    ------
    InputError: `out` has another suffix, the source has a fault, or two passages have the same id.
    """
    if format_suffix(out) != ".jsonl" or out.suffix.lower() not in (".jsonl", ".gz"):
        raise InputError(
            f"{out} is written as JSON lines; let its name end in .jsonl or .jsonl.gz."
        )
    zipped = out.suffix.lower() == ".gz"
    described = repr((source.identity, split, PART, zipped))
    parts = out.with_name(
        f".{out.name}.parts-{hashlib.sha256(described.encode()).hexdigest()[:16]}"
    )
    for stale in out.parent.glob(f".{out.name}.parts-{'[0-9a-f]' * 16}"):
        if stale != parts and _is_own(stale):
            shutil.rmtree(stale)
    parts.mkdir(exist_ok=True)
    try:
        counts = _finished(parts)
        bar = tqdm(
            _parts(source, len(counts), processes, split),
            desc=printable(source.name),
            unit="part",
            initial=len(counts),
            disable=None if progress else True,
        )
        for number, (passages, faults) in enumerate(bar, len(counts)):
            _write_left_out(parts, number, faults)
            _write_part(parts, number, passages, zipped)
            counts.append(len(passages))
        if not sum(counts):
            shutil.rmtree(parts)
            raise InputError(f"{source.name} has no passage; there is nothing to write.")
        whole = parts / "whole"
        with open(whole, "wb") as sink:
            for number, count in enumerate(counts):
                with open(parts / _part_name(number, count), "rb") as part:
                    shutil.copyfileobj(part, sink)
        faults = [fault for number in range(len(counts)) for fault in _read_left_out(parts, number)]
        replace_file(whole, out)
        shutil.rmtree(parts)
        if left_out is not None:
            for fault in faults:
                left_out(fault)
    finally:
        if parts.exists() and not _finished(parts):  # there is no part to go on from
            shutil.rmtree(parts)
    return sum(counts)


def _is_own(parts: Path) -> bool:
    """Whether there is nothing in a folder that a build of parts does not write."""
    own = re.compile(r"\d{6}-\d+|left-out-\d+\.json|whole|\..+\.unfinished")
    return parts.is_dir() and all(own.fullmatch(path.name) for path in parts.iterdir())


def _part_name(number: int, count: int) -> str:
    return f"{number:06d}-{count}"


def _finished(parts: Path) -> list[int]:
    """How many passages each finished part has."""
    names = sorted(path.name for path in parts.iterdir() if path.name[0].isdigit())
    return [int(name.split("-")[1]) for name in names]


def _write_part(parts: Path, number: int, passages: list[_Placed], zipped: bool) -> None:
    path = parts / _part_name(number, len(passages))
    data = "".join(_line(*each) for each in passages).encode()
    if zipped:  # gzip parts can be joined to one file; without a time stamp the bytes are the same
        data = gzip.compress(data, mtime=0)
    write_whole(path, lambda sink: sink.write(data))


def _line(passage: Passage, document: str | None) -> str:
    of = {} if document is None else {"document": document}
    entry = {"id": passage.id, **of, "title": passage.title, "text": passage.text}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _write_left_out(parts: Path, number: int, faults: list[LeftOut]) -> None:
    if faults:
        write_json(parts / f"left-out-{number}.json", [[f.title, f.reason] for f in faults])


def _read_left_out(parts: Path, number: int) -> list[LeftOut]:
    path = parts / f"left-out-{number}.json"
    if not path.exists():
        return []
    try:
        return [LeftOut(*fault) for fault in convert(manifests.read(path), list[tuple[str, str]])]
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} is damaged ({printable(error)}); remove the folder {parts}, and build again"
        ) from None


def _parts(
    source: Source, done: int, processes: int, split: Split
) -> Iterator[tuple[list[_Placed], list[LeftOut]]]:
    """The passages of every part after the first `done`, and its articles that were left out."""
    if source.article is None:  # reading is cheap, so finished parts are read and checked again
        if source.places:
            pieces = ((piece, document_of(piece.id)) for piece in source.records())
        else:
            pieces = _split(source.records(), split)
        for block in _blocks(islice(pieces, done * PART, None), PART):
            yield block, []
        return
    records = islice(source.records(), done * PART, None)
    for articles in _blocks(_mapped(source.article, records, processes), PART):
        passages = [article for article in articles if isinstance(article, Passage)]
        faults = [article for article in articles if isinstance(article, LeftOut)]
        cut = [_placed(passage, cut_passage(passage, split)) for passage in passages]
        yield [piece for pieces in cut for piece in pieces], faults


def _blocks(items: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while block := list(islice(items, size)):
        yield block


def _mapped(
    article: Callable[[_T], Passage | None], records: Iterator[_T], processes: int
) -> Iterator[Passage | LeftOut | None]:
    """`map` in several processes, with few records in memory at a time, as a dump would not fit."""
    if processes == 1:
        yield from (_one(article, record) for record in records)
        return
    with process_pool(processes) as pool:
        under_way: deque[Future[list[Passage | LeftOut | None]]] = deque()
        for block in _blocks(records, TASK):
            under_way.append(pool.submit(_each, article, block))
            if len(under_way) > 2 * processes:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()


def _each(
    article: Callable[[_T], Passage | None], records: list[_T]
) -> list[Passage | LeftOut | None]:
    return [_one(article, record) for record in records]


def _one(article: Callable[[_T], Passage | None], record: _T) -> Passage | LeftOut | None:
    """The passage of a record. One article's fault, of whatever kind, must not end the build: it
    would end it again at every later try."""
    try:
        passage = article(record)
        if passage is not None:
            for field in (passage.id, passage.title, passage.text):
                field.encode("utf-8")
        return passage
    except (InputError, MemoryError):  # a missing package, not the article's fault
        raise
    except Exception as error:
        title = str(getattr(record, "title", record))[:100].encode("utf-8", "replace").decode()
        return LeftOut(title, str(error) or type(error).__name__)
