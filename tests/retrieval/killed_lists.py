"""Kills the writing of BM25's lists beside an index at every file operation; run by test_bm25.py.

    python killed_lists.py FOLDER

The lists of another corpus are already there. After every kill the retriever must find what one
that keeps nothing finds, and the folder then holds whole lists and nothing else. Prints the number
of kills; exits with 1 and a sentence on the first breach.
"""

import sys
from pathlib import Path

from ragbook.manifests import BM25_FILE
from ragbook.retrieval import BM25Retriever, inverted
from tests.fakes import animals
from tests.killing import kill_everywhere
from tests.retrieval.test_bm25 import found_by


def replaced(out: Path) -> None:
    """Build the lists where another corpus's are."""
    BM25Retriever(animals(), out)


def before(out: Path) -> None:
    out.mkdir()
    inverted.write(inverted.build(animals(5)), animals(5), out / BM25_FILE)


def check(out: Path, expected: object) -> None:
    assert found_by(BM25Retriever(animals(), out)) == expected, "other passages are found"
    names = [path.name for path in out.iterdir() if path.suffix != ".lock"]
    assert names == [BM25_FILE], f"{names} are left"
    assert inverted.read(animals(), out / BM25_FILE) is not None, "the lists are not whole"


def main(folder: Path) -> int:
    expected = found_by(BM25Retriever(animals()))
    return kill_everywhere(folder, "out", replaced, lambda out: check(out, expected), before)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
