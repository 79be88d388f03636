"""A Sphinx extension that mends what the theme, docutils and pandas write for screen readers.

Each rule is one change of the finished pages: a name that hides an element's own text, an element
without a name, a role that its element may not have, a table's empty corner that is no heading.
"""

import re
from pathlib import Path
from typing import Any

RULES: tuple[tuple[str, str], ...] = (
    # A button that says "Search" with its keys, and a cell's fold, have a text: it is their name.
    (
        r'(<button class="[^"]*search-button-field[^>]*?) aria-label="Search"',
        r"\1",
    ),
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # The icons' titles would be read beside the button's name, all three of them.
    (r'(<i class="theme-switch [^>]*?) +title="[^"]*"', r"\1"),
    # The button that opens a chapter's sections is only an icon.
    (
        r'<summary>(?=<span class="toctree-toggle")',
        '<summary aria-label="Sections">',
    ),
    # The logo and the search are in no landmark of their own.
    (
        r'<div id="pst-primary-sidebar"(?= class)',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="The book"',
    ),
    # The corner of a table heads nothing.
    (r"<th></th>", "<td></td>"),
    (r'<th class="head"><p></p></th>', '<td class="head"><p></p></td>'),
    # Deprecated, and not allowed here; the citations are paragraphs with an anchor.
    (r' role="doc-biblioentry"', ""),
    (r'<div role="list" class="citation-list">', '<div class="citation-list">'),
)


def mended(page: str) -> str:
    """The page after all rules."""
    for pattern, replacement in RULES:
        page = re.sub(pattern, replacement, page)
    return page


def mend(app: Any, error: Exception | None) -> None:
    """Rewrite the pages of the finished site."""
    if error is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(mended(text), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("build-finished", mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
