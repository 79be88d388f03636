"""Kills the build of a datastore wherever it touches the file system; run by test_datastore.py.

    python killed_datastores.py FOLDER

As `killed_builds.py` does with the passage index. Prints the number of kills;
exits with 1 and a sentence on the first breach.
"""

import sys
from pathlib import Path

# Imported, not used, before the forks: or each child pays for it.
import pandas  # noqa: F401  # Arrow does
import pyarrow.compute  # noqa: F401

from ragbook.errors import InputError
from ragbook.index import arrays
from ragbook.index.datastore import Datastore, build_datastore, verify
from tests.index.test_datastore import CORPUS, Letters
from tests.killing import contents, in_child, kill_everywhere


def build(out: Path) -> Datastore:
    return build_datastore(CORPUS, out, Letters(), progress=False)


def check(out: Path, reference: Path) -> None:
    """What opens is whole, and building again ends with the undisturbed build's bytes."""
    try:
        Datastore.open(out)
        assert verify(out) == [], "a datastore that opens is damaged"
    except InputError:
        pass
    build(out)
    assert contents(out) == contents(reference), "rebuilt, the datastore has other bytes"
    assert [path.name for path in out.parent.iterdir()] == [out.name], "something is left over"


def main(folder: Path) -> int:
    arrays.CHUNK_PASSAGES = 5
    reference = folder / "reference" / "store"
    assert in_child(lambda: build(reference)) == 0
    return kill_everywhere(folder, "store", build, lambda out: check(out, reference))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
