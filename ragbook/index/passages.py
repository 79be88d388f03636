"""Passages on disk: an Arrow IPC file that is mapped into memory, never loaded whole.

Arrow trusts the offsets of the texts in a file, and one that leads out of the file ends the
process. So before the first passage of a batch is read, the batch's offsets are looked through.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from ragbook import manifests
from ragbook.corpus import Passage, passages_sha256
from ragbook.errors import InputError
from ragbook.files import write_json
from ragbook.index.checksums import ranges_of

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
    noted: Any = None
    with suppress(OSError, ValueError, KeyError, TypeError, InputError):
        noted = manifests.read(note)
        if noted["identity"] == identity and isinstance(noted["sha256"], str):
            return StoredPassages(path, name, noted["sha256"])
    ours = isinstance(noted, dict) and "identity" in noted
    if folder.exists() and not ours and {p.name for p in folder.iterdir()} - {path.name}:
        raise InputError(
            f"{folder} is needed for the passages and was not made by ragbook; move it or choose "
            "another place."
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(note, {"identity": identity, "sha256": None}, indent=None)  # whose folder it is
    try:
        write_passages(path, passages)
    except InputError:
        shutil.rmtree(folder)
        raise
    sha256 = passages_sha256(StoredPassages(path, name, ""))
    write_json(note, {"identity": identity, "sha256": sha256}, indent=None)
    return StoredPassages(path, name, sha256)


def passage_checksums(path: Path) -> dict[str, Any]:
    """The entry `ragbook.index.checksums.Checksums` of a file that `write_passages` wrote."""
    ranges = ranges_of(path)
    if len(ranges) == 1:  # all of it
        return {"ranges": ranges}
    batches = StoredPassages(path, "", "")._batches
    return {"ranges": ranges, "batches": [_offsets_crc32(batch) for batch in batches]}


def _offsets(column: pa.Array) -> np.ndarray | None:
    """Where a column's texts begin and end, int32 [n + 1]; None if there are not so many."""
    placed = column.buffers()[1]
    if placed is None or placed.size < 4 * (len(column) + 1):
        return None
    return np.frombuffer(placed, np.int32, len(column) + 1)


def _in_bounds(batch: pa.RecordBatch) -> bool:
    """Whether no text is missing or begins or ends outside of its column's bytes."""
    for column in batch.columns:
        present, _, texts = column.buffers()
        offsets = _offsets(column)
        if present is not None or offsets is None or column.offset != 0:
            return False
        size = 0 if texts is None else texts.size
        if offsets[0] < 0 or offsets[-1] > size or (offsets[1:] < offsets[:-1]).any():
            return False
    return True


def _offsets_crc32(batch: pa.RecordBatch) -> int:
    found = 0
    for column in batch.columns:
        offsets = _offsets(column)
        found = zlib.crc32(b"" if offsets is None else offsets.tobytes(), found)
    return found


class StoredPassages(Sequence[Passage]):
    """The passages of an index, read from the mapped file when they are used.

    It has the interface of a `Corpus` (`name`, `sha256`, `position`, `get`, indexing, iteration),
    and can be used in its place.

    Parameters
    ----------
    path: a file that `write_passages` wrote.
    name, sha256: the corpus's name and digest, as the index's manifest has them.
    checksums: for each batch the CRC-32 of its offsets, as `passage_checksums` gives them; without
        them only the offsets' order and bounds are checked.

    Raises
    ------
    InputError: the file is not such an Arrow file.
    """

    def __init__(self, path: Path, name: str, sha256: str, checksums: Sequence[int] = ()) -> None:
        self.name = name
        self.sha256 = sha256
        self.documents: Path | None = None  # as a corpus's; set by who knows it
        self._path, self._checksums = path, tuple(checksums)
        self._checked: set[int] = set()  # numbers of batches
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
        if self._checksums and len(self._checksums) != len(self._batches):
            raise InputError(f"{path} is damaged (a batch is missing); build the index again.")

    def _batch(self, number: int) -> pa.RecordBatch:
        """A batch whose offsets have been checked."""
        batch = self._batches[number]
        if number not in self._checked:
            right = _in_bounds(batch) and (
                not self._checksums or self._checksums[number] == _offsets_crc32(batch)
            )
            if not right:
                raise InputError(
                    f"{self._path} is damaged (where the texts from passage {number * BATCH} on "
                    "begin and end); build the index again."
                )
            self._checked.add(number)
        return batch

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle only the arguments: another process maps the same file."""
        return StoredPassages, (self._path, self.name, self.sha256, self._checksums)

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
        batch, row = self._batch(position // BATCH), position % BATCH
        try:
            return Passage(*(batch.column(i)[row].as_py() for i in range(len(SCHEMA))))
        except UnicodeDecodeError:
            raise InputError(
                f"{self._path} is damaged (passage {position} is not text); build the index again."
            ) from None

    def __iter__(self) -> Iterator[Passage]:
        for number in range(len(self._batches)):
            batch = self._batch(number)
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
        return self._column(0, "an id")

    def titles(self) -> Iterator[str]:
        """The passages' titles, in the same order."""
        return self._column(1, "a title")

    def _column(self, column: int, what: str) -> Iterator[str]:
        try:
            for number in range(len(self._batches)):
                yield from self._batch(number).column(column).to_pylist()
        except UnicodeDecodeError:
            raise InputError(
                f"{self._path} is damaged ({what} is not text); build the index again."
            ) from None

    def position(self, passage_id: str) -> int:
        """The passage's position, from 0; KeyError if there is no passage with this id."""
        return self._positions[passage_id]

    def get(self, passage_id: str) -> Passage:
        """The passage with this id; KeyError if there is none."""
        return self[self.position(passage_id)]
