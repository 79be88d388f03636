"""Flips single bits in the files of indexes and a datastore, and looks what comes of it.

    python -m tests.flips [--flips 2000] [--seed 0]

Each flip's opening and searching run in a child process, so that one that ends the process is seen;
the child is used again until one does. The folders are small: one index exact, one a graph (HNSW),
one of inverted lists in two parts, one of codes for fast scans behind a rotation, and a datastore
with an approximate index. Each is tried as it was built, with checksums of the ends of its files
only (as if it were large), and without checksums (as if an older version had built it).

What comes of a flip is one of

    refused     one sentence, when it is opened or searched
    equal       the same results and texts
    other       other results or texts, without a word; only `verify` finds these flips
    traceback   another error
    signal      the process ended
    hang        no answer for a minute
    unnoticed   `verify` finds nothing

Exits with 1 if there is one of the last four kinds. Half of the flips fall in the first or last 256
bytes of a file, where headers stand, the others anywhere.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.errors import InputError

BAD = ("traceback", "signal", "hang", "unnoticed")
PATIENCE = 60.0  # seconds

Flip = tuple[str, str, int, int]
"""Folder, file, byte, bit."""

KINDS: dict[str, dict[str, Any]] = {
    "flat": {},
    "graph": {"factory": "HNSW8"},
    "lists": {"factory": "IVF4,SQ8", "parts": 2},
    "scan": {"factory": "OPQ4_16,IVF4,PQ4x4fs"},
    "datastore": {},
}
PASSAGES = 640


def build(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Build the folders of these kinds, each in three ways; their paths."""
    from ragbook.index import build_index, checksums
    from ragbook.index.datastore import add_approximate, build_datastore
    from tests.fakes import HashEncoder, animals
    from tests.index.test_datastore import Letters

    made = []
    whole, ends = checksums.WHOLE, checksums.ENDS
    for how in ("built", "large"):
        if how == "large":
            checksums.WHOLE, checksums.ENDS = 0, 64
        for kind in kinds:
            options = KINDS[kind]
            if kind == "datastore":
                made.append(folder / f"datastore-{how}")
                store = build_datastore(animals(180), made[-1], Letters(), progress=False)
                add_approximate(store)
                continue
            made.append(folder / f"{kind}-{how}")
            build_index(
                animals(PASSAGES), made[-1], HashEncoder(dimension=32), progress=False, **options
            )
    checksums.WHOLE, checksums.ENDS = whole, ends
    for path in list(made):
        if path.name.endswith("-built"):
            made.append(path.with_name(path.name.replace("-built", "-old")))
            shutil.copytree(path, made[-1])
            without_checksums(made[-1])
    return made


def without_checksums(folder: Path) -> None:
    """Write a folder's manifest as an older version did."""
    from ragbook.index.manifest import serialize

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["checksums"]
    (folder / "manifest.json").write_bytes(serialize(manifest))


def found(folder: Path) -> Any:
    """What opening, searching and reading a folder gives, to compare."""
    from ragbook.index import PassageIndex
    from ragbook.index.datastore import Datastore

    rng = np.random.default_rng(0)
    if folder.name.startswith("datastore"):
        store = Datastore.open(folder)
        queries = np.asarray(store.keys[::997], dtype=np.float32) + 0.25
        exact, near = store.search(queries, 5)
        codes, probed = store.search_approximately(queries, 5, recompute=True)
        texts = [store.passages[int(p)] for p in store.passage_of(near).ravel()]
        values = store.values[near]
        return [each.tolist() for each in (exact, near, codes, probed, values)], texts
    index = PassageIndex.open(folder)
    queries = rng.standard_normal((6, index.dimension)).astype(np.float32)
    scores, positions = index.search(queries, 7)
    texts = list(index.corpus)
    vectors = index.vectors(np.array([0, len(index) - 1, len(index) // 2]))
    places = [index.corpus.position(text.id) for text in texts[:5]]
    return scores.tolist(), positions.tolist(), texts, vectors.tolist(), places


def flipped(folder: Path, flip: Flip) -> None:
    _, name, byte, bit = flip
    with (folder / name).open("r+b") as file:
        file.seek(byte)
        (value,) = file.read(1)
        file.seek(byte)
        file.write(bytes([value ^ (1 << bit)]))


def look(folder: Path, expected: Any) -> tuple[str, str]:
    """What comes of a flip that was made, and the error's text."""
    from ragbook.index import verify
    from ragbook.index.datastore import verify as verify_datastore

    try:
        check = verify_datastore if folder.name.startswith("datastore") else verify
        try:
            problems = check(folder)
        except InputError:  # it does not even look like one
            problems = ["not an index"]
        if not problems:
            return "unnoticed", ""
        return ("equal" if repr(found(folder)) == expected else "other"), ""
    except InputError as error:
        said = str(error)
        return ("refused", said) if len(said.splitlines()) == 1 else ("traceback", said)
    except BaseException as error:
        return "traceback", f"{type(error).__name__}: {error}"


def serve(tasks: Connection, root: str) -> None:
    """A child: makes flips in its own copy and answers what came of each."""
    expected: dict[str, str] = {}
    while True:
        flip = tasks.recv()
        folder = Path(root) / flip[0]
        if flip[0] not in expected:
            expected[flip[0]] = repr(found(folder))
        flipped(folder, flip)
        tasks.send(look(folder, expected[flip[0]]))
        flipped(folder, flip)  # as it was


class Child:
    """A process that tries flips; `look` starts it and, after one that ended it, a new one."""

    def __init__(self, root: Path) -> None:
        self.root, self.process = root, None

    def look(self, flip: Flip) -> tuple[str, str]:
        """What comes of a flip."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.tasks, theirs = context.Pipe()
            self.process = context.Process(target=serve, args=(theirs, str(self.root)), daemon=True)
            self.process.start()
            theirs.close()
        self.tasks.send(flip)
        try:
            if self.tasks.poll(PATIENCE):
                return self.tasks.recv()
            outcome = "hang", ""
        except EOFError:
            self.process.join()
            code = self.process.exitcode or 0
            outcome = "signal", signal.Signals(-code).name if code < 0 else f"exit {code}"
        self.close()
        flipped(self.root / flip[0], flip)  # it had no time for it
        return outcome

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.process = None


def drawn(folders: list[Path], flips: int, seed: int) -> Iterator[Flip]:
    """Flips, of all folders and files in turn."""
    clock = random.Random(seed)
    files = [path for folder in folders for path in sorted(folder.iterdir())]
    for number in range(flips):
        path = files[number % len(files)]
        size = path.stat().st_size
        byte = clock.randrange(size)
        if clock.random() < 0.5:
            near = byte % min(256, size)
            byte = near if clock.random() < 0.7 else size - 1 - near
        yield path.parent.name, path.name, byte, clock.randrange(8)


def run(
    root: Path, flips: int, seed: int, kinds: Sequence[str] = tuple(KINDS)
) -> tuple[Counter, list[str]]:
    """How often each came of so many flips, and a line for every bad one."""
    folders = build(root, kinds)
    child, counts, bad = Child(root), Counter(), []
    for flip in drawn(folders, flips, seed):
        outcome, said = child.look(flip)
        counts[outcome] += 1
        counts[f"{flip[0].rpartition('-')[2]}: {outcome}"] += 1
        if outcome in BAD:
            bad.append(f"{outcome} {said}: {flip[0]}/{flip[1]}, byte {flip[2]}, bit {flip[3]}")
            print(bad[-1], flush=True)
    child.close()
    return counts, bad


def main() -> int:
    parser = argparse.ArgumentParser(description="flip bits of indexes and a datastore")
    parser.add_argument("--flips", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, bad = run(Path(folder), arguments.flips, arguments.seed)
    for outcome, count in sorted(counts.items()):
        print(f"{count:6,}  {outcome}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
