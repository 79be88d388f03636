"""Kills a build at every point where it touches the file system; run by test_build.py.

    python killed_builds.py FOLDER [--overwrite | --approximate]

The build runs in a forked child (Faiss and Arrow are imported but not used before the fork), which
sends itself SIGKILL at its n-th file operation, for n = 0, 1, 2, ... until a build survives. After
every kill another child checks what the next user finds. Prints the number of kills; exits with 1
and a sentence on the first breach.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# Imported, not used, before the forks: or each child pays for it.
import faiss  # noqa: F401
import pandas  # noqa: F401  # Arrow does
import pyarrow.compute  # noqa: F401

import ragbook.models.limits  # noqa: F401  # a build counts what its encoder cuts
from ragbook.errors import InputError
from ragbook.index import PassageIndex, assembly, build_index, verify
from tests.fakes import HashEncoder, animals

KIND = {}
"""Options of the approximate index: two parts, their inverted lists filled in several blocks."""
if "--approximate" in sys.argv:
    KIND = {"factory": "IVF1,SQ8", "parts": 2}
    assembly.BLOCK = 10


def build(out: Path, overwrite: bool) -> PassageIndex:
    return build_index(
        animals(45 if KIND else 9),
        out,
        HashEncoder(),
        progress=False,
        overwrite=overwrite,
        shard_passages=15 if KIND else 5,
        **KIND,
    )


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


def check(out: Path, reference: Path, overwrite: bool) -> None:
    """What opens is whole, and building again ends with the undisturbed build's bytes."""
    try:
        PassageIndex.open(out)
        assert verify(out) == [], "an index that opens is damaged"
    except InputError:
        pass
    build(out, overwrite)
    assert contents(out) == contents(reference), "rebuilt, the index has other bytes"
    assert [path.name for path in out.parent.iterdir()] == [out.name], "something is left over"


def kill_everywhere(
    folder: Path,
    name: str,
    build: Callable[[Path], object],
    check: Callable[[Path], None],
    before: Callable[[Path], object] = lambda out: None,
) -> int:
    """Kill `build` of `folder/N/name` at its n-th file operation, n = 0, 1, 2, ..., each time
    after `before` and with a `check` of what is left, until one survives; the exit status."""
    n = 0
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
        n += 1
    print(n)
    return 0


def main(folder: Path, overwrite: bool) -> int:
    reference = folder / "reference" / "index"
    assert in_child(lambda: build(reference, False)) == 0
    old = folder / "old" / "index"
    assert in_child(lambda: build_index(animals(4), old, HashEncoder(), progress=False)) == 0
    return kill_everywhere(
        folder,
        "index",
        lambda out: build(out, overwrite),
        lambda out: check(out, reference, overwrite),
        lambda out: shutil.copytree(old, out) if overwrite else None,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), "--overwrite" in sys.argv))
