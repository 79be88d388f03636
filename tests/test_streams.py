"""The command's work is done, and its status is right, whatever its standard streams are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")


def shell(arguments: str, streams: str) -> subprocess.CompletedProcess[str]:
    """The command in a shell, its streams redirected."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -m ragbook {arguments} {streams}'],
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    lines = ({"id": f"p{n}", "title": f"T{n}", "text": f"Text {n}."} for n in range(3))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@posix
@pytest.mark.parametrize(
    "streams", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "<&-", "> /dev/null 2>&-"]
)
def test_closed_streams_do_not_matter(corpus, tmp_path, streams):
    out = tmp_path / "out.jsonl"
    run = shell(f"corpus build {corpus} --out {out}", streams)
    assert (run.returncode, run.stderr) == (0, "")
    # Nothing that was printed went into the file whose number was free.
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["p0", "p1", "p2"]


@posix
@pytest.mark.parametrize("streams", [">&-", ">&- 2>&-"])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [("--version", 0), ("corpus info miniwiki --json", 0), ("corpus info nowhere", 2), ("no", 2)],
)
def test_the_status_is_the_same_with_closed_streams(arguments, status, streams):
    run = shell(arguments, streams)
    assert run.returncode == status
    assert "Traceback" not in run.stderr
    assert bool(run.stderr) == (status != 0 and "2>&-" not in streams)
