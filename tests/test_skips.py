"""RAGBOOK_NO_SKIPS=1: what continuous integration may not skip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """import pytest
@pytest.mark.skipif(True, reason="no GPU")
def test_gpu(): pass
@pytest.mark.skipif({skipped}, reason="no browser")
def test_browser(): pass
"""


@pytest.mark.parametrize(
    ("source", "no_skips", "status"),
    [
        (MODULE.format(skipped=True), "0", 0),
        (MODULE.format(skipped=True), "1", 1),
        (MODULE.format(skipped=False), "1", 0),
        ("import pytest\npytest.importorskip('no_such_package')\n", "1", 2),
    ],
)
def test_only_a_gpu_may_be_missing(tmp_path, source, no_skips, status):
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env=os.environ | {"RAGBOOK_NO_SKIPS": no_skips},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout
