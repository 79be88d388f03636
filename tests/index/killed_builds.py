"""Kills a build at every point where it touches the file system; run by test_build.py.

    python killed_builds.py FOLDER [--overwrite | --approximate]

The build runs in a forked child (Faiss and Arrow are imported but not used before the fork), which
sends itself SIGKILL at its n-th file operation, for n = 0, 1, 2, ... until a build survives. After
every kill another child checks what the next user finds. Prints the number of kills; exits with 1
and a sentence on the first breach.
"""

import shutil
import sys
from pathlib import Path

# Imported, not used, before the forks: or each child pays for it.
import faiss.contrib.ondisk  # noqa: F401
import pandas  # noqa: F401  # Arrow does
import pyarrow.compute
import pyarrow.pandas_compat  # noqa: F401

import ragbook.models.limits  # noqa: F401  # a build counts what its encoder cuts
from ragbook.errors import InputError
from ragbook.index import PassageIndex, assembly, build_index, verify
from ragbook.index.manifest import read_manifest
from tests.fakes import HashEncoder, animals
from tests.killing import contents, in_child, kill_everywhere

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


def main(folder: Path, overwrite: bool) -> int:
    reference = folder / "reference" / "index"
    assert in_child(lambda: build(reference, False)) == 0
    read_manifest(reference)  # the types of its fields are worked out once, not in each child
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
