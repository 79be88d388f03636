"""Every page of the built site can be read and operated without seeing it, or seeing it badly."""

from pathlib import Path

import accessible_pages
import pytest

from tests.book.browser import browse, needs_browser, report_of, served, with_script
from tests.book.test_site import SITE, pages

SCRIPT = Path(__file__).with_name("accessible.js").read_text(encoding="utf-8")
built = pytest.mark.skipif(
    not (SITE / "index.html").exists(),
    reason="the site is not built; `make site` builds it",
)


def looks(site, name, tmp_path):
    """What `accessible.js` finds on a page of a folder, four times."""
    blank = site / f"probe-blank-{name.replace('/', '-')}"
    blank.write_text("<html><head></head><body></body></html>", encoding="utf-8")
    probe = f"probe-accessible-{name.replace('/', '-')}"
    copy = with_script(blank, probe, SCRIPT.replace("PAGE", f"'{name}'"))
    try:
        with served(site) as root:
            document, _ = browse(f"{root}/{probe}", tmp_path / "profile")
    finally:
        copy.unlink()
        blank.unlink()
    found = report_of(document)
    assert isinstance(found, list), found
    assert [each.pop("asked") for each in found] == [
        "light 390",
        "light 1280",
        "dark 390",
        "dark 1280",
    ]
    return found


@built
@needs_browser
@pytest.mark.parametrize("name", [str(p.relative_to(SITE)) for p in pages()])
def test_a_page_lacks_nothing(name, tmp_path):
    """In both themes, on a phone and on a desk: text has WCAG's contrast (4.5, and 3 if it is
    large), what scrolls can be reached and is named, headings do not skip a level, whatever can be
    operated has a name, and no heading of a table is empty."""
    for look in looks(SITE, name, tmp_path):
        assert look == {key: [] for key in look}


@needs_browser
def test_what_a_page_lacks_is_found(tmp_path):
    (tmp_path / "page.html").write_text(
        "<!doctype html><html><body><article><h1>A</h1><h3>B</h3>"
        "<p style='color: #888'>pale</p><p style='color: #888; font-size: 24px'>large</p>"
        "<p style='background: #ddd'><b style='color: rgba(0, 0, 0, 0.5)'>mixed</b></p>"
        "<button></button><button>named</button><table><tr><th></th><th>C</th></tr></table>"
        "<div class='pst-scrollable-table-container' style='width: 50px; overflow: auto'>"
        "<p style='width: 90px'>wide</p></div></article></body></html>",
        encoding="utf-8",
    )
    for look in looks(tmp_path, "page.html", tmp_path):
        assert look["faint"] == ["3.54 pale", "3.73 mixed"]
        assert look["skipped"] == [3]
        assert [len(look[key]) for key in ("unreachable", "unnamed", "empty")] == [1, 1, 1]


def test_each_rule_mends_one_thing():
    page = (
        '<button class="btn search-button-field x" title="Search" aria-label="Search" data-a="b">'
        '<button class="btn search-button x" aria-label="Search">'
        '<i class="theme-switch fa-solid fa-sun fa-lg" data-mode="light"  title="Light"></i>'
        '<summary aria-label="Toggle hidden content"><p>Show</p></summary>'
        '<summary><span class="toctree-toggle" role="presentation"></span></summary>'
        '<div id="pst-primary-sidebar" class="bd-sidebar"><th></th><th>k</th>'
        '<div role="list" class="citation-list"><div class="citation" role="doc-biblioentry">'
    )
    assert accessible_pages.mended(page) == (
        '<button class="btn search-button-field x" title="Search" data-a="b">'
        '<button class="btn search-button x" aria-label="Search">'
        '<i class="theme-switch fa-solid fa-sun fa-lg" data-mode="light"></i>'
        "<summary><p>Show</p></summary>"
        '<summary aria-label="Sections"><span class="toctree-toggle" role="presentation"></span>'
        '</summary><div id="pst-primary-sidebar" role="complementary" aria-label="The book" '
        'class="bd-sidebar"><td></td><th>k</th>'
        '<div class="citation-list"><div class="citation">'
    )
    once = accessible_pages.mended(page)
    assert accessible_pages.mended(once) == once
