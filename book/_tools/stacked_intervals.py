"""A Sphinx extension that puts the interval of a score below the score in a comparison's table.

With both on one line the table of all methods and metrics is wider than a page beside its two
sidebars. In other tables, whose cells may break where the page is too narrow, an interval stays in
one piece.
"""

import re
from typing import Any

TABLE = re.compile(r"<table>\s*<caption>.*?</table>", re.S)
CELL = re.compile(
    r"(<td>(?:<b>)?[\d.∞]+(?:</b>)?) ([\[(][^<\])]*[\])])((?: [^<]*)?</td>)"
)
DATA = re.compile(r"<t[dh]>[^<]*</t[dh]>")
INTERVAL = re.compile(r"\[([+-]?[\d.]+), ([+-]?[\d.]+)\]")


def stacked(body: str) -> str:
    """The page with what is in brackets after a score below it, in tables with a caption, and all
    intervals in one piece."""
    body = TABLE.sub(lambda table: CELL.sub(_stack_cell, table[0]), body)
    return DATA.sub(lambda cell: INTERVAL.sub("[\\1,\u00a0\\2]", cell[0]), body)


def _stack_cell(cell: re.Match[str]) -> str:
    """The score and its marks, and below them the interval."""
    marks = cell[3].removesuffix("</td>")
    return f"{cell[1]}{marks}<br>{cell[2]}</td>"


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
