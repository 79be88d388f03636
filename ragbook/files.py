"""Files and folders that appear complete or not at all, their hashes, and safe names."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal; the file is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_records(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """For each of the named files its `sha256` in hexadecimal and its size in `bytes`."""
    return {
        name: {"sha256": sha256_of_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
    }


def cache_folder() -> Path:
    """The folder for what is made once for a user, such as indexes built without a path:
    RAGBOOK_CACHE, or ~/.cache/ragbook."""
    return Path(os.environ.get("RAGBOOK_CACHE") or Path.home() / ".cache" / "ragbook")


def is_bare_name(name: str) -> bool:
    """Whether a name from outside, such as one in a manifest, can only mean a file directly in a
    folder: on every system it has no separator, no drive and no NUL, and it is not empty, `.` or
    `..`."""
    return name not in ("", ".", "..") and "\0" not in name and PureWindowsPath(name).name == name


def fsync(path: Path) -> None:
    """Ask the system to write a file, or a folder's list of names, to the disk now."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """For writers that take a path: yields a hidden path in the same folder, and renames the file
    that was written there to `path` when the block ends without an error.

    An existing file `path` is replaced, or left as it was if the block fails. Several processes and
    threads may write the same file at once; the last one to finish is kept. A killed process leaves
    the hidden file; see `remove_unfinished`.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        yield unfinished
        replace_file(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of the file `name`, or of any file, have left in a folder. No
    other process may be writing it at the same time."""
    for unfinished in folder.glob(f".{name}.*.unfinished"):
        unfinished.unlink()


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """As `whole_file`, for writers that take an open binary file: calls `write(file)` once."""
    with whole_file(path) as unfinished, unfinished.open("wb") as file:
        write(file)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, as `write_whole` does; line ends are not changed on any system."""
    write_whole(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a value as JSON with a line end after it, as `write_whole` does."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def replace_file(finished: Path, path: Path) -> None:
    """Rename a finished file to `path`, on the same disk; an existing file is replaced."""
    fsync(finished)
    os.replace(finished, path)
    fsync(path.parent)


def replace_together(finished: Path, out: Path, own: Iterable[str], last: str) -> None:
    """Move all files of the folder `finished` into the folder `out`, on the same disk, in place of
    an earlier result's, so that files of two results never stand beside each other.

    First the earlier result's files are removed, `last` before all others, then the finished files
    are moved, `last` after all others: while it is there, so are the others. If this is
    interrupted, what has not been moved is still in `finished`.

    Parameters
    ----------
    own: patterns of the names, relative to `out` and with `/` between folder and name, of the files
        that a result may have. What else is in `out` stays as it is.
    last: the name of one of the finished files.
    """
    files = [path for path in finished.rglob("*") if path.is_file()]
    names = {path.relative_to(finished).as_posix() for path in files}
    for name in names:
        fsync(finished / name)
    (out / last).unlink(missing_ok=True)
    fsync(out)
    for pattern in own:
        for path in out.glob(pattern):
            if path.is_file() or path.is_symlink():
                path.unlink()
    for name in [*sorted(names - {last}), last]:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == last:
            fsync(out)
        os.replace(finished / name, path)
    for folder in {(out / name).parent for name in names}:
        fsync(folder)


def replace_folder(finished: Path, out: Path) -> None:
    """Rename a finished folder to `out`, on the same disk; an existing folder is replaced.

    Between the renaming of the old folder and that of the new one, there is no folder `out`.
    """
    for path in [*finished.rglob("*"), finished]:
        fsync(path)
    replaced = finished.with_name(f".{finished.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)  # a killed process may have left one
    if out.exists():
        os.rename(out, replaced)
    os.rename(finished, out)
    fsync(out.parent)
    shutil.rmtree(replaced, ignore_errors=True)
