"""The command's work is done, and its status is right, whatever its standard streams are; and an
interrupt ends it without a traceback from its first moment on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "ragbook"]
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


# A signal would have to come at the right moment; an import that is interrupted has it always.
INTERRUPTED = """
import runpy, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Finder())
sys.argv = ["ragbook", "corpus", "info", "miniwiki"]
sys.modules.pop({module!r}, None)
runpy.run_module("ragbook", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "module",
    ["ragbook.cli", "argparse", "ragbook.cli.parser", "ragbook.cli.commands", "ragbook.corpus"],
)
def test_an_interrupted_import_is_one_line(module):
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(module=module)],
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert (run.returncode, run.stderr, run.stdout) == (130, "ragbook: interrupted\n", "")


@posix
def test_an_interrupt_at_any_moment_shows_no_line_of_ours(tmp_path):
    """Before the package's own first line, Python itself may say that it was interrupted."""
    for wait in range(0, 60, 12):
        process = subprocess.Popen(
            [*COMMAND, "corpus", "info", "miniwiki"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            process.wait(wait / 1000)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert str(ROOT / "ragbook" / "cli") not in err
        assert str(ROOT / "ragbook" / "corpus") not in err
