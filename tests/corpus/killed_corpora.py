"""Kills the building of a passage file at every file operation; run by test_building.py.

    python killed_corpora.py FOLDER

As `tests/index/killed_builds.py` does with an index: after every kill the next build must end with
the bytes of one that was not killed. Prints the number of kills; exits with 1 and a
sentence on the first breach.
"""

import sys
from pathlib import Path

from ragbook.corpus import Passage, building
from ragbook.corpus.building import build_passages
from ragbook.corpus.sources import Source
from ragbook.corpus.splitting import Split
from tests.killing import kill_everywhere

building.PART = 4


def article(number: int) -> Passage | None:
    return None if number % 5 == 2 else Passage(str(number), f"T{number}", "word " * number)


def build(out: Path) -> None:
    source = Source("s", "1", lambda: iter(range(1, 19)), article)
    build_passages(source, out, split=Split("words", 7), progress=False)


def check(out: Path, whole: bytes) -> None:
    assert not out.exists() or out.read_bytes() == whole, "the file is not whole"
    build(out)
    assert out.read_bytes() == whole, "built again, the file has other bytes"
    assert [path.name for path in out.parent.iterdir()] == [out.name], "something is left over"


def main(folder: Path) -> int:
    reference = folder / "reference.jsonl"
    build(reference)
    whole = reference.read_bytes()
    return kill_everywhere(folder, "out.jsonl", build, lambda out: check(out, whole))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
