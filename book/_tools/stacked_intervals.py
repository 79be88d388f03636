"""A Sphinx extension that puts the interval of a score below the score in a comparison's table.

With both on one line the table of all methods and metrics is wider than a page beside its two
sidebars.
"""

import re
from typing import Any

TABLE = re.compile(r"<table>\s*<caption>.*?</table>", re.S)
CELL = re.compile(r"(<td>(?:<b>)?[\d.∞]+(?:</b>)?) (?=[\[(])")


def stacked(body: str) -> str:
    """The page with each score of a table with a caption above what is in brackets after it."""
    return TABLE.sub(lambda table: CELL.sub(r"\1<br>", table[0]), body)


def stack(
    _app: Any,
    _page: str,
    _template: str,
    context: dict[str, Any],
    _doctree: Any,
) -> None:
    """Stack the scores and intervals of a page."""
    if "body" in context:
        context["body"] = stacked(context["body"])


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("html-page-context", stack)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
