"""An interrupt ends the command with status 130 and at most one line, whenever it comes."""

import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINE = "ragbook: interrupted\n"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

# Python imports this module at its start. It counts the calls and returns of Python functions from
# the first call after the first line of ours on, and sends an interrupt when it has counted enough:
# a moment that is the same on every machine.
SITE = f"""
import atexit, os, signal, sys

OURS = {str(ROOT / "ragbook")!r}
moment = int(os.environ["MOMENT"])
seen = -1  # -1: nothing of ours has run, 0: only its first frame

def count(frame, event, argument):
    global seen
    if event not in ("call", "return"):
        return
    if seen < 1:
        if event == "call" and (seen == 0 or frame.f_code.co_filename.startswith(OURS)):
            seen += 1
        return
    seen += 1
    if seen == moment:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)

def write():
    sys.setprofile(None)
    with open(os.environ["COUNTED"], "w") as file:
        file.write(str(seen))

if moment == 0:
    atexit.register(write)
sys.setprofile(count)
"""


def console_script(folder: Path) -> Path:
    """The script that an installer writes for this project."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, function = project["scripts"]["ragbook"].split(":")
    path = folder / "ragbook"
    path.write_text(
        f"import sys\nfrom {module} import {function}\n"
        f"if __name__ == '__main__':\n    sys.exit({function}())\n"
    )
    return path


@pytest.fixture(scope="module", params=["console script", "python -m"])
def command(request, tmp_path_factory) -> list[str]:
    if request.param == "python -m":
        return [sys.executable, "-m", "ragbook"]
    return [sys.executable, str(console_script(tmp_path_factory.mktemp("bin")))]


def start(command: list[str], path: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
        | environment,
        # A shell starts what runs in its background with the signal ignored: that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def test_an_interrupt_after_any_call_is_at_most_one_line(command, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SITE)
    counted, arguments = tmp_path / "counted", [*command, "corpus", "info", "miniwiki"]
    whole = start(arguments, tmp_path, MOMENT="0", COUNTED=str(counted))
    assert (whole.communicate()[1], whole.returncode) == ("", 0)
    last = int(counted.read_text()) - 1  # without the call of `write`
    assert last > 10_000  # imports, the parser, the corpus
    drawn = random.Random(len(command)).sample(range(5, last), 10)
    for moment in [2, 3, 4, *drawn, last - 1, last]:
        run = start(arguments, tmp_path, MOMENT=str(moment))
        err = run.communicate()[1]
        assert err in ("", LINE), f"moment {moment} of {last}"
        assert run.returncode == 130, f"moment {moment} of {last}"


def test_an_interrupt_at_any_time_shows_no_line_of_ours(command):
    """Before our first line Python itself may say that it was interrupted, and where."""
    arguments = [*command, "corpus", "info", "miniwiki"]
    before = time.monotonic()
    assert start(arguments).communicate()[1] == ""
    took = time.monotonic() - before
    draw = random.Random(17)
    for _ in range(5):
        run = start(arguments)
        time.sleep(draw.random() * took)
        run.send_signal(signal.SIGINT)  # may come too late, and is nothing then
        err = run.communicate()[1]
        if err not in ("", LINE):
            assert str(ROOT / "ragbook") not in err
            assert run.returncode != 0


# What a command meets while it works, and what it must not show.
MEETS = """
import signal, sys
from ragbook.cli import interrupts

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

def in_a_finalizer():
    Finalized()
    return 0

def renamed_by_a_library():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("initialization failed") from None

def refused_by_a_library():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return 2

def twice():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)

def after_the_work():
    import atexit
    atexit.register(signal.raise_signal, signal.SIGINT)
    return 0

def an_error_of_its_own():
    raise RuntimeError("a fault")

sys.exit(interrupts.run(globals()[sys.argv[1]]))
"""


@pytest.mark.parametrize(
    ("meets", "line"),
    [
        ("in_a_finalizer", LINE),
        ("renamed_by_a_library", LINE),
        ("refused_by_a_library", ""),
        ("twice", LINE),
        ("after_the_work", ""),
    ],
)
def test_an_interrupt_that_python_would_lose_or_rename(meets, line):
    run = start([sys.executable, "-c", MEETS, meets])
    assert (run.communicate()[1], run.returncode) == (line, 130)


def test_an_error_without_an_interrupt_is_not_hidden():
    run = start([sys.executable, "-c", MEETS, "an_error_of_its_own"])
    assert "RuntimeError: a fault" in run.communicate()[1]
    assert run.returncode == 1


def test_the_first_interrupt_lets_the_command_put_its_work_away(tmp_path):
    code = f"""
import signal
from pathlib import Path
from ragbook.cli import interrupts
def work():
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        Path({str(tmp_path / "away")!r}).touch()
raise SystemExit(interrupts.run(work))
"""
    run = start([sys.executable, "-c", code])
    assert (run.communicate()[1], run.returncode) == (LINE, 130)
    assert (tmp_path / "away").exists()


def test_ignored_interrupts_stay_ignored(command, tmp_path):
    """As a shell starts what runs in its background, and `nohup`."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SITE
    )
    for moment in (2, 900):
        run = start([*command, "--version"], tmp_path, MOMENT=str(moment))
        assert (run.communicate()[1], run.returncode) == ("", 0)


def test_who_imports_the_package_keeps_their_own_handling():
    code = (
        "import signal, sys; sys.argv[0] = '-m'; import ragbook, ragbook.cli; "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    run = start([sys.executable, "-c", code])
    assert (run.communicate()[1], run.returncode) == ("", 0)


# An entry that nothing has prepared: a signal would have to come at the right moment there; an
# import that is interrupted has it always.
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
    run = start([sys.executable, "-c", INTERRUPTED.format(module=module)])
    assert (run.communicate()[1], run.returncode) == (LINE, 130)
