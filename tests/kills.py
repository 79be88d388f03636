"""Kills what takes long wherever it touches the file system: builds of indexes, BM25's lists,
datastores and passage files, trainings, comparisons and additions to them.

    python -m tests.kills [--kills 200]

After every kill: what opens is whole when verified, and the same again ends with the bytes of one
that was not killed and leaves nothing beside them. Prints how many kills each had; exits with 1 if
one of them left something broken, or if they had fewer kills than asked for.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parent
WORK = {
    "index": ["index/killed_builds.py"],
    "index, replaced": ["index/killed_builds.py", "--overwrite"],
    "index, approximate": ["index/killed_builds.py", "--approximate"],
    "datastore": ["index/killed_datastores.py"],
    "passages": ["corpus/killed_corpora.py"],
    "BM25's lists": ["retrieval/killed_lists.py"],
    "training": ["training/killed_trainings.py"],
    "comparison": ["evaluation/killed_comparisons.py"],
    "addition": ["evaluation/killed_additions.py"],
}


def kills_of(script: str, *options: str, timeout: float | None = None) -> tuple[int, str]:
    """How many kills a piece of work had, and what was said if one left something broken.

    Parameters
    ----------
    script: its path below this folder.
    timeout: seconds that all may take.
    """
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, str(TESTS / script), folder, *options],
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    if done.returncode != 0:
        return 0, (done.stdout + done.stderr).strip()
    return int(done.stdout.split()[-1]), ""


def main() -> int:
    parser = argparse.ArgumentParser(description="kill what takes long at every file operation")
    parser.add_argument("--kills", type=int, default=200)
    arguments = parser.parse_args()
    total, broken = 0, False
    for name, command in WORK.items():
        kills, said = kills_of(*command)
        total, broken = total + kills, broken or bool(said)
        print(f"{kills:6}  {name}{': ' + said if said else ''}", flush=True)
    print(f"{total:6}  in all, {'broken' if broken else 'nothing broken'}")
    return 1 if broken or total < arguments.kills else 0


if __name__ == "__main__":
    sys.exit(main())
