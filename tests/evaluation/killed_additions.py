"""Kills `compare --append` at every file operation; run by test_appending.py.

    python killed_additions.py FOLDER [EVERY]

With a number EVERY, only at every so many-th operation. After every kill the folder must hold the
stored comparison or the longer one, or neither's results.json; in every case the same addition
again, and another one, must end with the bytes of one that was not killed. Prints the number of
kills; exits with 1 and a sentence on the first breach.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ragbook import explorer, figures
from ragbook.cli import comparing
from ragbook.cli.appending import methods_to_add, stored_comparison
from tests.evaluation.killed_comparisons import CORPUS, Method, contents, questions
from tests.killing import kill_everywhere

QUESTIONS = questions(20)


class Drawn:
    """A figure that takes no time to draw."""

    def __init__(self, results: dict) -> None:
        self.shown = repr(sorted(results["methods"]))

    def save(self, path: Path) -> None:
        path.write_text(self.shown)


def run(out: Path, names: list[str], append: bool = True) -> None:
    """What `ragbook compare --out` does after it has parsed and loaded."""
    arguments = argparse.Namespace(
        out=out, append=append, k=3, seed=0, leave_one_out=False, prompt=None, methods=names
    )
    before = stored_comparison(arguments)
    if before is not None:
        methods_to_add(before, names, chosen=True)
    methods: list[Any] = [Method(name) for name in names]
    retriever = methods[0].retriever
    comparing.compare_methods(arguments, methods, QUESTIONS, CORPUS, None, retriever, before)


def check(out: Path, old: dict, new: dict, other: dict) -> None:
    found = contents(out)
    if "results.json" in found:
        assert found in (old, new), "results.json stands beside files of another comparison"
    whole = found == new
    shutil.copytree(out, out.parent / "again")
    if not whole:
        run(out, ["b"])
    assert contents(out) == new, "gone on, the addition has other bytes"
    if not whole:
        assert not [path for path in out.iterdir() if path.name[0] == "."], "something is left over"
        run(out.parent / "again", ["c"])
        assert contents(out.parent / "again") == other, "another addition has other bytes"


def main(folder: Path, every: int) -> int:
    for name, added in (("old", None), ("new", "b"), ("other", "c")):
        (folder / name).mkdir()
        run(folder / name, ["a"], append=False)
        if added is not None:
            run(folder / name, [added])
    old, new, other = (contents(folder / name) for name in ("old", "new", "other"))
    return kill_everywhere(
        folder,
        "out",
        lambda out: run(out, ["b"]),
        lambda out: check(out, old, new, other),
        before=lambda out: shutil.copytree(folder / "old", out),
        every=every,
    )


if __name__ == "__main__":
    assert explorer.write  # imported before the forks: or each child pays for it
    figures.side_by_side = figures.errors = Drawn  # type: ignore[assignment]
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (what a run that goes on says)
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
