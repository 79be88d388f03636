"""Encoding by several processes: the same bytes, whatever was killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index, verify
from tests.fakes import HashEncoder, animals

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

BUILD = """
import sys
from pathlib import Path
from ragbook.index import build_index
from tests.fakes import HashEncoder, animals
if __name__ == "__main__":
    print("ready", flush=True)
    build_index(
        animals(203), Path(sys.argv[1]), HashEncoder(pause=0.05), progress=False,
        shard_passages=10, workers=2,
    )
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class FailingEncoder(HashEncoder):
    """Fails at a passage: by vectors that are not finite, or by dying."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def encode_passages(self, passages, batch_size=64):
        vectors = super().encode_passages(passages, batch_size)
        if any(passage.id.endswith("-12") for passage in passages):
            if self.how == "die":
                os._exit(9)
            vectors[0] = float("nan")
        return vectors


def test_several_processes_write_the_same_bytes(tmp_path):
    options = {"progress": False, "shard_passages": 5}
    build_index(animals(), tmp_path / "one", HashEncoder(), **options)
    build_index(animals(), tmp_path / "two", HashEncoder(), **options, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(("how", "said"), [("nan", "not finite"), ("die", "has died")])
def test_a_worker_that_fails_leaves_what_is_done(tmp_path, how, said):
    out = tmp_path / "index"
    options = {"progress": False, "shard_passages": 5}
    with pytest.raises(InputError, match=said):
        build_index(animals(), out, FailingEncoder(how), **options, workers=2)
    assert not out.exists()
    encoder = HashEncoder()
    build_index(animals(), out, encoder, **options)
    assert encoder.encoded < 23 or how == "die"
    build_index(animals(), tmp_path / "reference", HashEncoder(), **options)
    assert contents(out) == contents(tmp_path / "reference")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_the_process_that_started_them_is_killed(tmp_path):
    """Its workers end with it, and the next build goes on from their shards."""
    out, script = tmp_path / "index", tmp_path / "build.py"
    script.write_text(BUILD)
    clock, kills, shards = random.Random(1), 0, 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, str(script), str(out)], env=ENVIRONMENT, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        before = shards
        while shards < before + 2 and process.poll() is None:
            time.sleep(clock.uniform(0.01, 0.1))
            shards = len(list((tmp_path / ".index.building" / "shards").glob("*.npy")))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        # Workers hold the standard output open: its end is theirs.
        assert process.stdout.read() == b""
        process.stdout.close()
        if out.exists():
            break
        with pytest.raises(InputError):
            PassageIndex.open(out)
    assert kills >= 2
    build_index(animals(203), out, HashEncoder(), progress=False, shard_passages=10)
    build_index(animals(203), tmp_path / "reference", HashEncoder(), progress=False)
    assert verify(out) == []
    assert contents(out) == contents(tmp_path / "reference")
    assert not (tmp_path / ".index.building").exists()
