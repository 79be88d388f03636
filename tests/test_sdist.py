"""The source distribution holds what git holds: so its tests run wherever it is unpacked."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None,
    reason="what an unpacked sdist should hold is known in a git clone only",
)
# The list of files that an sdist is made of, without the archive: nothing goes into the clone.
LIST = "import sys; from setuptools import setup; setup(script_args=sys.argv[1:])"


def git_files(*options: str) -> set[str]:
    run = subprocess.run(
        ["git", "ls-files", "-z", *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in run.stdout.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> set[str]:
    base = tmp_path_factory.mktemp("egg")
    run = subprocess.run(
        [sys.executable, "-c", LIST, "--quiet", "egg_info", "--egg-base", str(base)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    names = (base / "ragbook.egg-info" / "SOURCES.txt").read_text(encoding="utf-8").splitlines()
    return {name for name in names if "ragbook.egg-info/" not in name}


def test_the_sdist_holds_every_file_of_git(listed):
    tracked = git_files()
    assert "tests/fakes.py" in tracked
    missing = sorted(tracked - listed)
    assert not missing, "MANIFEST.in leaves out files of git"


def test_the_sdist_holds_nothing_that_git_ignores(listed):
    ignored = sorted(listed - git_files("--cached", "--others", "--exclude-standard"))
    assert not ignored, "MANIFEST.in takes what is built or kept beside the files of git"
