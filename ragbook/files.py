"""The ground floor: files and folders that appear whole or not at all, their hashes, their names."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ragbook.errors import InputError

_BLOCK = 1 << 20


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """Have the system write a file or a folder's list of names to the disk. Where a folder cannot
    be opened (Windows) there is nothing to do for it."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write(file)` fill a binary file that gets its name only when it is whole and on the
    disk; it then takes the place of a file of that name. Should anything fail, nothing is left.

    Parameters
    ----------
    path: the file; its folder exists.
    write: is called once with the open file.
    """
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        write(file)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """For writers that want a name: yields a hidden path beside `path`, and renames what was
    written there to `path` once the block has ended without an error."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        fsync(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_whole` of a text in UTF-8, its line ends as they are."""
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """`write_whole` of a value as JSON with a line end; ValueError for NaN and infinities."""
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def replace_folder(finished: Path, out: Path) -> None:
    """Rename the finished folder to `out`, in the place of one that may stand there. Both are on
    one disk; `finished` has a sibling `replaced` for the moment between."""
    replaced = finished.with_name("replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        os.rename(out, replaced)
    os.rename(finished, out)
    fsync(out.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def check_bare_name(name: str, where: Path) -> str:
    """`name` if it names a file right in a folder.

    Raises
    ------
    InputError: it is empty, hidden or leads elsewhere (a separator, a drive, `..`); the message
        names `where`, the file that holds the name.
    """
    if not name or name.startswith(".") or name != Path(name).name or set(name) & set("/\\:\0"):
        raise InputError(f"{where} names the file {name!r}, which is not a plain file name.")
    return name
