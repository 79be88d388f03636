"""The built site, read from its files and then in a real browser.

`make site` builds it; without it, or without Chromium, what needs them is skipped and says so.
With RAGBOOK_NO_SKIPS=1 it fails instead (see `tests/conftest.py`).
"""

import functools
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from ragbook.methods import NAMES
from tests.book.browser import browse, needs_browser, report_of, served, with_script

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
GENERATED = {"genindex.html", "search.html"}  # Sphinx's own pages, without content of ours

pytestmark = pytest.mark.skipif(
    not (SITE / "index.html").exists(),
    reason="the site is not built; `make site` builds it",
)


@functools.cache
def page(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def pages() -> list[Path]:
    """The pages with content of ours: the chapters, the reference below `api`, the explorer."""
    found = [*SITE.glob("*.html"), *SITE.glob("api/*.html")]
    return sorted(p for p in found if p.name not in GENERATED and not p.name.startswith("probe"))


def chapters() -> list[Path]:
    return [p for p in pages() if p.name[:2].isdigit()]


def solutions() -> list[Path]:
    return sorted(SITE.glob("solutions/*.html"))


def test_every_chapter_is_there_and_leads_to_its_solutions():
    assert (SITE / "index.html").exists()
    assert len(chapters()) == 12
    assert [p.name for p in solutions()] == [p.name for p in chapters()]
    for chapter, solved in zip(chapters(), solutions(), strict=True):
        exercises = page(chapter).find("section", id="exercises")
        assert exercises is not None, chapter.name
        assert exercises.find("a", href=f"solutions/{solved.name}"), chapter.name
        article = page(solved).find("article")
        assert article is not None
        assert article.find("a", href=f"../{chapter.name}"), solved.name


def test_nothing_is_fetched_from_elsewhere():
    for path in pages() + solutions():
        soup = page(path)
        sources = [tag.get("src") for tag in soup.find_all(["script", "img", "iframe", "source"])]
        sources += [tag.get("href") for tag in soup.find_all("link") if "stylesheet" in tag["rel"]]
        outside = [s for s in sources if s and urlsplit(str(s)).netloc]
        assert not outside, f"{path.name}: {outside}"


def test_every_internal_link_and_image_is_there():
    broken = []
    for path in pages() + solutions():
        for tag in page(path).find_all(["a", "img", "script", "link"]):
            link = str(tag.get("href") or tag.get("src") or "")
            if not link or link.startswith(("mailto:", "data:", "javascript:")):
                continue
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.name == "explorer.html" and parts.fragment.startswith("q="):
                questions = SITE / "explorer" / "questions.js"  # an address for the page's script
                known = parts.fragment[2:] in questions.read_text(encoding="utf-8")
            else:
                known = True
            if not known or not target.exists():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target.name != "explorer.html" and target.suffix == ".html":
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
    pictures = [str(image["src"]) for image in page(SITE / "index.html").select("article img")]
    assert "landing.png" in [Path(source).name for source in pictures]


LOOK = """
    const out = [];
    for (const mode of ['light', 'dark']) {
      for (const width of [360, 1280]) {
        localStorage.setItem('mode', mode);
        localStorage.setItem('theme', mode);
        const frame = document.createElement('iframe');
        frame.style.cssText = `width: ${width}px; height: 900px; border: 0`;
        frame.src = PAGE;
        document.body.append(frame);
        await new Promise((done) => { frame.onload = done; });
        const page = frame.contentDocument, shown = frame.contentWindow;
        const formulas = page.querySelectorAll('.math').length;
        try {
          await until(() => page.querySelectorAll('mjx-container').length >= formulas);
        } catch { /* said below */ }
        await new Promise((done) => setTimeout(done, 300));
        const images = [...page.images].filter((i) => i.getBoundingClientRect().width > 0);
        out.push({
          asked: `${mode} ${width}`,
          theme: page.documentElement.dataset.theme,
          images: images.length,
          broken: images.filter((i) => !i.naturalWidth).map((i) => i.src),
          unsaid: [...page.querySelectorAll('article img:not([alt]), article img[alt=""]')]
            .map((i) => i.src),
          formulas: page.querySelectorAll('mjx-container').length - formulas,
          faults: page.querySelectorAll('mjx-merror, merror').length,
          wide: page.documentElement.scrollWidth - shown.innerWidth,
          bytes: shown.performance.getEntriesByType('resource')
            .concat(shown.performance.getEntriesByType('navigation'))
            .reduce((sum, one) => sum + one.decodedBodySize, 0),
        });
        frame.remove();
      }
    }
    return out;
"""


@needs_browser
@pytest.mark.parametrize("name", [str(p.relative_to(SITE)) for p in pages() + solutions()[:1]])
def test_in_a_browser(name, tmp_path):
    """In both themes, on a phone and on a desk: no error on the console, formulas rendered, every
    figure drawn and put into words, nothing wider than the screen."""
    blank = SITE / "blank.html"
    blank.write_text("<html><head></head><body></body></html>", encoding="utf-8")
    probe = f"probe-{name.replace('/', '-')}"
    copy = with_script(blank, probe, LOOK.replace("PAGE", f"'{name}'"))
    try:
        with served(SITE) as root:
            document, console = browse(f"{root}/{probe}", tmp_path)
    finally:
        copy.unlink()
        blank.unlink(missing_ok=True)
    errors = [
        line for line in console.splitlines() if re.search(r"error|uncaught|fail", line, re.I)
    ]
    assert not errors
    looks = report_of(document)
    assert len(looks) == 4, looks
    for look in looks:
        assert look["theme"] == look["asked"].split()[0]
        assert not look["broken"], look
        assert not look["unsaid"], look
        assert look["formulas"] >= 0, look
        assert not look["faults"], look
        assert look["wide"] <= 0, look
        if name == "index.html" or name[:2].isdigit():
            assert look["images"] > 0
        if name == "index.html":
            assert look["bytes"] < 1_000_000, look


@needs_browser
def test_the_explorer_is_a_page_of_the_site(tmp_path):
    """From the disk, in the book's theme; tests/book/test_explorer.py uses all of it."""
    copy = with_script(
        SITE / "explorer.html",
        "probe-explorer.html",
        """
        const root = await until(() => document.querySelector('#explorer[data-ready]'));
        const link = root.querySelector('.explorer-list a');
        link.click();
        const asked = link.firstChild.textContent;  // at first another question is open
        const heading = await until(() => {
            const one = document.getElementById('explorer-question');
            return one?.textContent === asked && one;
        });
        return {asked, shown: heading.textContent,
                cards: root.querySelectorAll('.explorer-method').length};
        """,
    )
    try:
        document, console = browse(copy.as_uri(), tmp_path)
    finally:
        copy.unlink()
    assert not re.search(r"error|uncaught|fail", console, re.I), console
    found = report_of(document)
    assert found["shown"] == found["asked"]
    assert found["cards"] == len(NAMES)
