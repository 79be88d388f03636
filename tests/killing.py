"""Kills work at every point where it touches the file system, in forked children.

Nothing but the standard library is imported: a script that kills what it tests imports, before it
forks, what its children need, or each child pays for it.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def in_child(work) -> int:
    """Run `work()` in a forked child; its wait status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def die_at(n: int, folder: Path) -> None:
    """Have this process killed at its n-th file operation that concerns `folder`."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        touches = event == "open" or event.startswith(("os.", "shutil."))
        if touches and any(str(folder) in str(argument) for argument in arguments):
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)
            seen += 1

    sys.addaudithook(hook)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def kill_everywhere(
    folder: Path,
    name: str,
    build: Callable[[Path], object],
    check: Callable[[Path], None],
    before: Callable[[Path], object] = lambda out: None,
    every: int = 1,
) -> int:
    """Kill `build` of `folder/N/name` at its n-th file operation, n = 0, `every`, 2 `every`, ...,
    each time after `before` and with a `check` of what is left, until one survives; prints the
    number of kills and returns the exit status."""
    os.fsync = lambda fd: None  # what was written outlives a killed process anyway
    n = kills = 0
    while True:
        out = folder / str(n) / name
        out.parent.mkdir()
        before(out)

        def killed(n: int = n, out: Path = out) -> None:
            die_at(n, out.parent)
            build(out)

        status = in_child(killed)
        if status == 0:
            break
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            print(f"the build failed by itself before operation {n}")
            return 1
        if in_child(lambda out=out: check(out)) != 0:
            print(f"broken after a kill at file operation {n}")
            return 1
        shutil.rmtree(out.parent)
        n, kills = n + every, kills + 1
    print(kills)
    return 0
