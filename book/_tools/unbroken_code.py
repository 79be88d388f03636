"""A Sphinx extension that keeps short code in the text on one line.

A browser may break a line at every hyphen, also within an option such as `--top-k`. Code of at most
24 characters gets the class `short`, which `book.css` does not break; longer code, such as a path,
breaks where it must, so that it fits a phone.
"""

import re
from typing import Any

SHORT = re.compile(
    r'<span class="pre">(?=(?:[^<&]|&#?\w+;){1,24}</span>(?:</code>| <span class="pre">))'
)


def with_short(body: str) -> str:
    """The page with the class `short` on each word of code in the text that has it."""
    return SHORT.sub('<span class="pre short">', body)


def mark(
    _app: Any,
    _page: str,
    _template: str,
    context: dict[str, Any],
    _doctree: Any,
) -> None:
    """Mark the short code of a page."""
    if "body" in context:
        context["body"] = with_short(context["body"])


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("html-page-context", mark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
