"""The built site, read from its files and then in a real browser.

`make site` builds it; without it, or without Chromium, what needs them is skipped and says so.
With RAGBOOK_REQUIRE_CHROMIUM=1 nothing is skipped.
"""

import contextlib
import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED = os.environ.get("RAGBOOK_REQUIRE_CHROMIUM") == "1"
GENERATED = {"genindex.html", "search.html"}  # Sphinx's own pages, without content of ours

pytestmark = pytest.mark.skipif(
    not REQUIRED and not (SITE / "index.html").exists(),
    reason="the site is not built; `make site` builds it",
)
needs_browser = pytest.mark.skipif(
    not REQUIRED and CHROMIUM is None, reason="there is no Chromium on this machine"
)


@functools.cache
def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pages() -> list[Path]:
    return sorted(p for p in SITE.glob("*.html") if p.name not in GENERATED)


def chapters() -> list[Path]:
    return [p for p in pages() if p.name[:2].isdigit()]


def test_every_chapter_is_there():
    assert (SITE / "index.html").exists()
    assert len(chapters()) == 9


def test_nothing_is_fetched_from_elsewhere():
    for path in pages():
        soup = page(path)
        sources = [tag.get("src") for tag in soup.find_all(["script", "img", "iframe", "source"])]
        sources += [tag.get("href") for tag in soup.find_all("link") if "stylesheet" in tag["rel"]]
        outside = [s for s in sources if s and urlsplit(str(s)).netloc]
        assert not outside, f"{path.name}: {outside}"


def test_every_internal_link_and_image_is_there():
    broken = []
    for path in pages():
        for tag in page(path).find_all(["a", "img", "script", "link"]):
            link = str(tag.get("href") or tag.get("src") or "")
            if not link or link.startswith(("mailto:", "data:", "javascript:")):
                continue
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target.suffix == ".html":
                anchor = unquote(parts.fragment)
                if page(target).find(id=anchor) is None:
                    broken.append(f"{path.name}: {link}")
    assert not broken


def test_every_chapter_has_a_figure_with_a_text_for_those_who_do_not_see_it():
    for path in [SITE / "index.html", *chapters()]:
        figures = page(path).select("article img, main img")
        figures = [f for f in figures if "logo" not in f.get("src", "")]
        assert figures, path.name
        for figure in figures:
            assert (SITE / unquote(figure["src"])).stat().st_size > 2000, path.name


def test_the_landing_page_shows_all_methods_side_by_side():
    text = page(SITE / "index.html").get_text()
    for name in ("closed-book", "knn-lm", "realm", "rag-sequence", "rag-token", "fid"):
        assert name in text
    assert "make book" in text
    assert "make test" in text


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served():
    """The site on a port of this machine; the address of its root."""
    handler = functools.partial(_Quiet, directory=str(SITE))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def browse(url: str, profile: Path) -> tuple[str, str]:
    """The page's document after its scripts ran, and what the browser's console said."""
    assert CHROMIUM, "there is no Chromium"
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--v=0",
        "--virtual-time-budget=15000",
        "--window-size=1280,2000",
    ]
    run = subprocess.run(
        [CHROMIUM, *flags, f"--user-data-dir={profile}", "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return run.stdout, "\n".join(console)


@needs_browser
@pytest.mark.parametrize("name", ["index.html", *(f"{n:02d}" for n in range(1, 10))])
def test_in_a_browser(name, tmp_path):
    """No console message of an error, formulas rendered, every figure drawn."""
    path = SITE / name if name.endswith(".html") else next(SITE.glob(f"{name}-*.html"))
    probe = SITE / f"probe-{path.name}"
    script = (
        "<script>window.addEventListener('load', () => setTimeout(() => {"
        "const bad = [...document.images].filter(i => i.getBoundingClientRect().width > 0 &&"
        " !i.naturalWidth).map(i => i.src);"
        "const p = document.createElement('p'); p.id = 'probe';"
        "p.textContent = 'images:' + document.images.length + ' broken:' + bad.length;"
        "document.body.append(p); }, 3000));</script>"
    )
    probe.write_text(
        path.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8"
    )
    try:
        with served() as root:
            document, console = browse(f"{root}/{probe.name}", tmp_path)
    finally:
        probe.unlink()
    errors = [
        line for line in console.splitlines() if re.search(r"error|uncaught|fail", line, re.I)
    ]
    assert not errors
    soup = BeautifulSoup(document, "html.parser")
    report = soup.find(id="probe")
    assert report is not None, "the page's scripts did not run"
    shown = re.fullmatch(r"images:(\d+) broken:(\d+)", report.get_text())
    assert shown
    assert int(shown[1]) > 0
    assert int(shown[2]) == 0
    formulas = len(page(path).select(".math"))
    if formulas:
        assert len(soup.select("mjx-container")) >= formulas
    assert not soup.select("mjx-merror, merror")
