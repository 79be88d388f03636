"""A Sphinx extension that makes the chapters' interactive figures interactive.

A cell that ends with an `experiments.interactive.Interactive` has stored a picture and, under a type
that only this extension knows, the figure's numbers. Behind the cell these are put into the page as
JSON. Such a page, and no other, loads `interactive.js` and `interactive.css`, which lie beside
this file.
"""

import json
import shutil
from pathlib import Path
from typing import Any

MIME = "application/vnd.ragbook.interactive+json"
FILES = ("interactive.js", "interactive.css")
ISLAND = '<script type="application/json" class="rb-interactive">'


def island(numbers: Any) -> str:
    """The numbers as a script element that nothing runs."""
    text = json.dumps(numbers, ensure_ascii=False).replace("</", "<\\/")
    return f"{ISLAND}{text}</script>"


def add(_app: Any, _name: str, source: list[str]) -> None:
    """Put the numbers of a notebook's figures behind the cells that made them."""
    if MIME not in source[0]:
        return
    notebook = json.loads(source[0])
    cells = []
    for cell in notebook["cells"]:
        cells.append(cell)
        for output in cell.get("outputs", []):
            # Taken out, for Sphinx would warn of a type that it does not know.
            numbers = output.get("data", {}).pop(MIME, None)
            if numbers is not None:
                cells.append(
                    {
                        "cell_type": "markdown",
                        "metadata": {},
                        "source": island(numbers),
                    }
                )
    source[0] = json.dumps({**notebook, "cells": cells})


def load(
    app: Any, _page: str, _template: str, context: dict[str, Any], _doctree: Any
) -> None:
    """Let a page with numbers load the script and the style."""
    if ISLAND in context.get("body", ""):
        app.add_js_file("interactive.js", loading_method="defer")
        app.add_css_file("interactive.css")


def copy(app: Any, error: Exception | None) -> None:
    """Put the script and the style among the site's static files."""
    if error is None and app.builder.format == "html":
        for name in FILES:
            shutil.copy(
                Path(__file__).with_name(name), Path(app.outdir) / "_static"
            )


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("source-read", add)
    app.connect("html-page-context", load)
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
