"""The hidden folder beside a result, `.NAME.building`, in which the result is made.

It holds `state.json`, which says what is being built and of what. A build that was killed is taken
up again where the state says that it was the same build; any other's remains are cleared away.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from ragbook.errors import InputError
from ragbook.index.manifest import fsync

try:
    import fcntl
except ImportError:  # Windows: two builds into one folder at once are then not noticed
    fcntl = None

STATE = "state.json"


def beside(out: Path) -> Path:
    """The working folder of a build of `out`."""
    return out.with_name(f".{out.name}.building")


@contextmanager
def locked(working: Path) -> Iterator[None]:
    """Make the working folder, hold it against other processes, remove it when the work is done.

    The lock is the system's, on the folder itself: a killed process leaves none behind.

    Raises
    ------
    InputError: another process holds the folder.
    """
    working.mkdir(exist_ok=True)
    if fcntl is None:
        yield
        _clear(working)
        return
    descriptor = os.open(working, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = working.exists() and os.path.samestat(os.fstat(descriptor), working.stat())
        except BlockingIOError:
            mine = False
        if not mine:  # held by another process, or removed by one that has just ended
            raise InputError(f"Another process is building in {working}; wait until it has ended.")
        yield
        _clear(working)
    finally:
        os.close(descriptor)


def _clear(working: Path) -> None:
    """Remove the working folder; its state goes last, so that what a kill leaves is known by it."""
    for path in working.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != STATE:
            path.unlink()
    (working / STATE).unlink(missing_ok=True)
    working.rmdir()


def is_empty(folder: Path) -> bool:
    """Whether there is a folder with nothing in it."""
    return folder.is_dir() and not any(folder.iterdir())


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write(file)` fill a file that appears under its name only when it is whole."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def _state_bytes(state: dict[str, Any]) -> bytes:
    return json.dumps(state, sort_keys=True).encode()


def _is_of(working: Path, state: dict[str, Any]) -> bool:
    """Whether a working folder is that of the build which `state` describes."""
    path = working / STATE
    return path.is_file() and path.read_bytes() == _state_bytes(state)


def take_up(working: Path, state: dict[str, Any], parts: str) -> None:
    """Keep the folder `parts` of a killed build of the same inputs; clear away any other's."""
    if _is_of(working, state):
        (working / parts).mkdir(exist_ok=True)  # a kill can come in the clearing up
        return
    # The state goes first and comes last: parts must never stand beside a state of other inputs.
    (working / STATE).unlink(missing_ok=True)
    shutil.rmtree(working / parts, ignore_errors=True)
    (working / parts).mkdir()
    write_whole(working / STATE, lambda file: file.write(_state_bytes(state)))


def clear_remains(working: Path, state: dict[str, Any]) -> None:
    """Remove what a kill after the renaming has left of a build that is in its place."""
    if _is_of(working, state) or is_empty(working):
        with suppress(InputError, OSError), locked(working):
            pass


def put_in_place(finished: Path, out: Path) -> None:
    """Rename the finished folder to `out`; what stands there goes first."""
    replaced = finished.with_name("replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if out.exists():
        os.rename(out, replaced)
    os.rename(finished, out)
    fsync(out.parent)
