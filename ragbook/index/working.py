"""The hidden folder beside a result, `.NAME.building`, in which the result is built.

It holds `state.json`, which says what is being built and from what. A killed build is resumed if
the state says that it was the same build; what another build has left is removed. A folder of this
name that has neither the mark of such a build, the file MARK, nor its state is someone else's, and
is not touched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ragbook import manifests
from ragbook.errors import InputError
from ragbook.files import remove_unfinished, write_whole

STATE, LOCK, MARK = "state.json", "lock", "ragbook-build"


def beside(out: Path) -> Path:
    """The working folder of a build of `out`."""
    return out.with_name(f".{out.name}.building")


@contextmanager
def locked(working: Path, progress: str = "") -> Iterator[None]:
    """Create the working folder, keep other processes out of it, and remove it when the block has
    ended without an error, or with an InputError before there was anything to go on from.

    The lock is the operating system's, on a file in the folder. It ends with its process, so a
    killed process does not keep others out.

    Parameters
    ----------
    progress: the pattern of files in the folder that another build can go on from.

    Raises
    ------
    InputError: another process holds the lock, or the folder is not of a build.
    """
    _refuse_foreign(working)
    working.mkdir(exist_ok=True)
    lock = FileLock(working / LOCK, timeout=0)
    try:
        lock.acquire()
        mine = (working / LOCK).exists()
        if mine:
            (working / MARK).touch()
    except (Timeout, FileNotFoundError):
        mine = False
    if not mine:  # another process holds the lock, or has removed the folder while it ended
        lock.release()
        raise InputError(f"Another process is building in {working}; wait until it has ended.")
    try:
        yield
        _clear(working)
    except InputError:
        if not progress or not any(working.glob(progress)):
            _clear(working)
        raise
    finally:
        lock.release()
        if os.name == "nt":
            with suppress(OSError):  # a folder that is not empty is kept
                (working / LOCK).unlink(missing_ok=True)
                working.rmdir()


def _clear(working: Path) -> None:
    """Remove the folder's contents, then its state, then the lock and the folder. In this order the
    state still describes what is left if the process is killed meanwhile."""
    for path in working.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in (STATE, LOCK, MARK):
            path.unlink()
    (working / STATE).unlink(missing_ok=True)
    (working / MARK).unlink(missing_ok=True)
    if os.name != "nt":  # Windows cannot remove an open file
        (working / LOCK).unlink()
        working.rmdir()


def _is_bare(working: Path) -> bool:
    """Whether there is a working folder that holds only a lock and the mark."""
    return working.is_dir() and {path.name for path in working.iterdir()} <= {LOCK, MARK}


def _refuse_foreign(working: Path) -> None:
    """Raise InputError if there is something in the working folder's place that no build made."""
    if not working.exists() or _is_bare(working) or (working / MARK).is_file():
        return
    with suppress(OSError, ValueError):
        state = manifests.read(working / STATE)  # builds of before had no mark
        if isinstance(state, dict) and "corpus" in state:
            return
    raise InputError(
        f"{working} is needed to build in and was not made by ragbook; move it or choose another "
        "place."
    )


def is_empty(folder: Path) -> bool:
    """Whether the folder exists and is empty."""
    return folder.is_dir() and not any(folder.iterdir())


def _state_bytes(state: dict[str, Any]) -> bytes:
    return json.dumps(state, sort_keys=True).encode()


def _is_of(working: Path, state: dict[str, Any]) -> bool:
    """Whether the working folder belongs to the build that `state` describes."""
    path = working / STATE
    return path.is_file() and path.read_bytes() == _state_bytes(state)


def take_up(working: Path, state: dict[str, Any], parts: str) -> None:
    """Keep the folder `parts` if a killed build of the same inputs left it; otherwise empty it."""
    if _is_of(working, state):
        (working / parts).mkdir(exist_ok=True)  # a process may be killed while it clears up
        remove_unfinished(working / parts)
        return
    # The state is removed first and written last: parts must never be beside a state of other
    # inputs.
    (working / STATE).unlink(missing_ok=True)
    shutil.rmtree(working / parts, ignore_errors=True)
    (working / parts).mkdir()
    write_whole(working / STATE, lambda file: file.write(_state_bytes(state)))


def clear_remains(working: Path, state: dict[str, Any]) -> None:
    """Remove the working folder of a finished build that was killed after the renaming."""
    if _is_of(working, state) or _is_bare(working):
        with suppress(InputError, OSError), locked(working):
            pass
