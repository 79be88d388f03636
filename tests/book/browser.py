"""A real browser without a window: pages are opened, a script looks or clicks, and reports.

Where there is no Chromium, the tests that need it are skipped (see `tests/conftest.py`).
"""

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from bs4 import BeautifulSoup

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder: Path):
    """The folder on a port of this machine; the address of its root."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def browse(url: str, profile: Path, width: int = 1280, height: int = 2000) -> tuple[str, str]:
    """The page's document after its scripts ran, and what the browser's console said."""
    assert CHROMIUM, "there is no Chromium"
    once = ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=15000"]
    flags = [*FLAGS, *once, f"--window-size={width},{height}"]
    command = [CHROMIUM, *flags, f"--user-data-dir={profile}", "--dump-dom", url]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:  # its clock of virtual time sometimes never starts
        run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr[-2000:]
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return run.stdout, "\n".join(console)


def with_script(page: Path, name: str, script: str, first: str = "") -> Path:
    """A copy of a page beside it that also runs `script`, the body of an async function, after it
    has loaded; what this returns is the report. `first` runs before anything of the page.

    In the script, `until(what)` waits until a function gives something true, and gives it.
    """
    added = (
        "<script>window.addEventListener('load', async () => {"
        "const until = async (what) => { for (let i = 0; i < 200; i++) {"
        " const got = what(); if (got) return got;"
        " await new Promise((done) => setTimeout(done, 20)); }"
        " throw new Error(`waited in vain for ${what}`); };"
        "let report; try { report = await (async () => {" + script + "})(); }"
        " catch (error) { report = {error: String(error)}; }"
        "const p = document.createElement('p'); p.id = 'report';"
        "p.textContent = JSON.stringify(report); document.body.append(p); });</script>"
    )
    text = page.read_text(encoding="utf-8").replace("</body>", f"{added}</body>")
    copy = page.with_name(name)
    copy.write_text(text.replace("<head>", f"<head><script>{first}</script>", 1), encoding="utf-8")
    return copy


def report_of(document: str) -> Any:
    """What the page's added script reported."""
    found = BeautifulSoup(document, "html.parser").find(id="report")
    assert found is not None, "the page's scripts did not run"
    return json.loads(found.get_text())
