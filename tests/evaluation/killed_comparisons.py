"""Kills a comparison at every file operation; run by test_kept.py.

    python killed_comparisons.py FOLDER [EVERY]

With a number EVERY, only at every so many-th operation. The folder of the results already holds
those of another, larger run. After every kill, what is in it must be of one run, whole if there is
a results.json; the same run again must not ask again what is on the disk, and must end with the
bytes of a run that was not killed. Prints the number of kills; exits with 1 and a sentence on the
first breach.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import torch  # noqa: F401  # imported before the forks: or each child pays for it

from ragbook import explorer
from ragbook.corpus import Corpus, Passage, Question, QuestionSet
from ragbook.evaluation import compare
from ragbook.evaluation.comparison import written_together
from ragbook.evaluation.identity import identity
from ragbook.evaluation.kept import FOLDER, LINES, keeping
from ragbook.methods.base import Answer, Evidence
from tests.fakes import FixedRetriever
from tests.killing import in_child, kill_everywhere

N, BATCH = 40, 16
PASSAGES = [Passage(f"p{i}", f"T{i}", f"Number {i}.") for i in range(3)]
CORPUS = Corpus("c", PASSAGES)


def questions(n: int) -> QuestionSet:
    return QuestionSet("q", "dev", [Question(f"Q{i}?", (str(i % 3),), "p0") for i in range(n)])


class Method:
    """Answers with the question's last digit, and counts what it is asked."""

    parameters = 1

    def __init__(self, name: str) -> None:
        self.name, self.asked = name, 0
        self.retriever = FixedRetriever(PASSAGES, [1 / 3, 0.1, 0.0])

    def answer(self, questions, k=5):
        self.asked += len(questions)
        weights = (Evidence("p0", 1 / 3), Evidence("p1", 2 / 3))
        return [Answer(q.text, q.text[-2], -1 / 7, weights, 1 / 3) for q in questions]

    def log_prob(self, questions, answers, k=5):
        return [-len(q.text) / 3 for q in questions]


def run(out: Path, n: int = N) -> int:
    """Compare as `ragbook compare --out` does, without figures; how many questions were asked."""
    methods: list[Any] = [Method("a"), Method("b")]
    asked = questions(n)
    with keeping(out, identity(methods, asked, {"k": 3})) as kept:
        comparison = compare(methods, asked, k=3, progress=False, kept=kept)
        with written_together(out, kept.folder / "finished") as finished:
            comparison.write(finished)
            explorer.write(finished / "explorer", comparison.predictions, CORPUS, asked)
    return methods[0].asked


def contents(out: Path) -> dict[str, bytes]:
    """The files that a user sees."""
    paths = [path for path in out.rglob("*") if path.is_file()]
    names = {path: path.relative_to(out).as_posix() for path in paths}
    return {name: path.read_bytes() for path, name in names.items() if name[0] != "."}


def check(out: Path, old: dict[str, bytes], new: dict[str, bytes]) -> None:
    found = contents(out)
    assert found.items() <= old.items() or found.items() <= new.items(), "files of two runs"
    if "results.json" in found:
        assert found in (old, new), "results.json stands beside a part of the files"
    lines = out / FOLDER / LINES
    kept = lines.read_bytes().count(b"\n") if lines.is_file() else 0
    kept = kept if kept == N else kept // BATCH * BATCH
    assert run(out) == N - kept, "what was on the disk is asked again"
    assert contents(out) == new, "gone on, the run has other bytes"
    names = {path.name for path in out.iterdir()}
    assert not any(name.startswith(".") for name in names), "something is left over"


def main(folder: Path, every: int) -> int:
    (folder / "old").mkdir()
    (folder / "new").mkdir()
    assert in_child(lambda: run(folder / "old", 60)) == 0
    assert in_child(lambda: run(folder / "new")) == 0
    old, new = contents(folder / "old"), contents(folder / "new")
    assert "explorer/answers-2.js" in old.keys() - new.keys()
    return kill_everywhere(
        folder,
        "out",
        run,
        lambda out: check(out, old, new),
        before=lambda out: shutil.copytree(folder / "old", out),
        every=every,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
