"""Passages on disk: an Arrow IPC file that is mapped into memory, never loaded whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import pyarrow as pa

from ragbook.corpus import Passage, passages_sha256
from ragbook.errors import InputError
from ragbook.files import write_json

BATCH = 4096  # passages in one Arrow record batch; every batch but the last is full
SCHEMA = pa.schema([(column, pa.string()) for column in ("id", "title", "text")])


def write_passages(path: Path, passages: Iterable[Passage]) -> None:
    """Write passages as an uncompressed Arrow IPC file, the same bytes for the same passages. They
    are read as a stream; no more than BATCH of them are in memory."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        stream = iter(passages)
        while block := list(islice(stream, BATCH)):
            columns = [[getattr(p, field.name) for p in block] for field in SCHEMA]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))


def spool(folder: Path, name: str, identity: str, passages: Iterable[Passage]) -> StoredPassages:
    """Write the passages of a source that is too large for memory into a folder, and open them.

    Parameters
    ----------
    folder: a folder for these passages alone; what else is in it is removed.
    name: name of the corpus.
    identity: a string that differs if the passages do. If the folder holds passages with the same
        one, these are opened and the source is not read again.
    """
    path, note = folder / "passages.arrow", folder / "source.json"
    with suppress(OSError, ValueError, KeyError, InputError):
        noted = json.loads(note.read_text(encoding="utf-8"))
        if noted["identity"] == identity:
            return StoredPassages(path, name, noted["sha256"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        write_passages(path, passages)
    except InputError:
        shutil.rmtree(folder)
        raise
    sha256 = passages_sha256(StoredPassages(path, name, ""))
    write_json(note, {"identity": identity, "sha256": sha256}, indent=None)
    return StoredPassages(path, name, sha256)


class StoredPassages(Sequence[Passage]):
    """The passages of an index, read from the mapped file when they are used.

    It has the interface of a `Corpus` (`name`, `sha256`, `position`, `get`, indexing, iteration),
    and can be used in its place.

    Parameters
    ----------
    path: a file that `write_passages` wrote.
    name, sha256: the corpus's name and digest, as the index's manifest has them.

    Raises
    ------
    InputError: the file is not such an Arrow file.
    """

    def __init__(self, path: Path, name: str, sha256: str) -> None:
        self.name = name
        self.sha256 = sha256
        self._path = path
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if reader.schema != SCHEMA:
                raise InputError(f"{path} has unknown columns; build the index again.")
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:  # Arrow raises either for damaged bytes
            raise InputError(f"{path} cannot be read ({error}); build the index again.") from None
        self._length = sum(batch.num_rows for batch in self._batches)
        if any(batch.num_rows != BATCH for batch in self._batches[:-1]):
            raise InputError(f"{path} is damaged (a batch is not full); build the index again.")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the arguments: another process maps the same file."""
        return StoredPassages, (self._path, self.name, self.sha256)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Passage: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Passage, ...]: ...
    def __getitem__(self, index: int | slice) -> Passage | tuple[Passage, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        position = range(len(self))[index]  # resolves negative numbers and raises IndexError
        batch, row = self._batches[position // BATCH], position % BATCH
        try:
            return Passage(*(batch.column(i)[row].as_py() for i in range(len(SCHEMA))))
        except UnicodeDecodeError:
            raise InputError(
                f"{self._path} is damaged (passage {position} is not text); build the index again."
            ) from None

    def __iter__(self) -> Iterator[Passage]:
        for number, batch in enumerate(self._batches):
            try:
                columns = [column.to_pylist() for column in batch.columns]
            except UnicodeDecodeError:
                yield from self[number * BATCH :]  # the damaged one raises an error with its number
                raise
            yield from map(Passage, *columns)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {passage_id: position for position, passage_id in enumerate(self.ids())}

    def ids(self) -> Iterator[str]:
        """The passages' ids, in order; their texts are not read."""
        for batch in self._batches:
            yield from batch.column(0).to_pylist()

    def position(self, passage_id: str) -> int:
        """The passage's position, from 0; KeyError if there is no passage with this id."""
        return self._positions[passage_id]

    def get(self, passage_id: str) -> Passage:
        """The passage with this id; KeyError if there is none."""
        return self[self.position(passage_id)]
