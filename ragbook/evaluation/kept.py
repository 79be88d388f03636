"""A comparison's answers, kept on the disk as they are made: a run that ended early goes on.

While `ragbook compare --out DIR` runs, `DIR` has a hidden folder `.comparison.building`:

* `state.json`: what is compared: versions, questions, passages, models, settings;
* `lines.jsonl`: what was found for each question so far, a line each, batch by batch, and before it
  the line's CRC-32;
* `finished/`: the files of the finished run, moved to `DIR` when all are on the disk.

A run goes on from the lines if the state says that it was the same run. A line that was written
only in part or has changed since, and the batch that it belongs to, are made again, with all that
follow: methods read a batch together.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ragbook.files import write_whole
from ragbook.index.working import STATE, locked

FOLDER, LINES = ".comparison.building", "lines.jsonl"

Record = dict[str, Any]


class Kept:
    """The records of a run that are on the disk; `records` are those that an earlier process made.

    Parameters
    ----------
    folder: the working folder, which this process has locked.
    run: what is compared, as JSON. Records of another run are removed.

    Attributes
    ----------
    records: one for each question that is done, in the questions' order.
    done: for how many questions there are records, those that are added included.
    other: whether there were records of another run, which are gone now.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.folder, self.records, self.done = folder, list[Record](), 0
        self._bytes: list[int] = []  # where each record's line ends in the file
        state = json.dumps(run, sort_keys=True).encode()
        path = folder / STATE
        if path.is_file() and path.read_bytes() == state:
            self._read()
            self.other = False
            return
        self.other = (folder / LINES).is_file() and (folder / LINES).stat().st_size > 0
        # The state is removed first and written last: it must never be beside another run's lines.
        path.unlink(missing_ok=True)
        (folder / LINES).unlink(missing_ok=True)
        shutil.rmtree(folder / "finished", ignore_errors=True)
        write_whole(path, lambda file: file.write(state))

    def _read(self) -> None:
        """Take up the lines that are whole."""
        path = self.folder / LINES
        data = path.read_bytes() if path.is_file() else b""
        at = 0
        for line in data.split(b"\n")[:-1]:
            if line != _line(said := line[9:]):  # a power cut can leave zeros
                break
            at += len(line) + 1
            self.records.append(json.loads(said))
            self._bytes.append(at)

    def whole_batches(self, size: int, n: int) -> list[Record]:
        """The records of the complete batches of `size` of n questions; what is written beyond them
        is dropped, so that records can be added."""
        done = len(self.records)
        if done < n:
            done -= done % size
        self.records = self.records[:done]
        if (path := self.folder / LINES).is_file():
            os.truncate(path, self._bytes[done - 1] if done else 0)
        self.done = done
        return self.records

    def add(self, records: Sequence[Record]) -> None:
        """Write the records of the next questions, to the disk and not only to the system."""
        lines = b"".join(_line(json.dumps(record).encode()) + b"\n" for record in records)
        with (self.folder / LINES).open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        self.done += len(records)


def _line(record: bytes) -> bytes:
    """A line of the file: a record after its own checksum."""
    return b"%08x %b" % (zlib.crc32(record), record)


@contextmanager
def keeping(out: Path, run: Mapping[str, Any]) -> Iterator[Kept]:
    """What is kept of a run whose results go to the folder `out`. The working folder is removed
    when the block ends without an error, and stays otherwise.

    Raises
    ------
    InputError: another process compares into the same folder.
    """
    with locked(out / FOLDER, progress=LINES):
        yield Kept(out / FOLDER, run)
