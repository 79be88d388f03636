"""A Sphinx extension that says under a cell's output where it comes from.

A code cell with the tag ``stored-NAME`` shows what was measured once and is kept in
``results/NAME.json``: the line below it names the command and the date, from ``results/made.json``.
Below every other output is said that it was computed on the page. Cells that only print source
code, hidden cells and exercises that are not written yet have no such line.
"""

import ast
import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

TAG = "stored-"
HIDDEN = {"remove-cell", "remove-output", "hide-cell", "hide-output"}
SOURCE = {"getsource", "split", "strip", "dedent", "print", "Markdown"}
UNWRITTEN = "Not written yet."


def records(path: Path) -> dict[str, str]:
    """By each stored file's name without suffixes, how it was made, in Markdown: the last command
    that computed it, the date and, if that is no longer current, what it was measured on."""
    out: dict[str, str] = {}
    for making in json.loads(path.read_text(encoding="utf-8")):
        computed = [
            step
            for step in making["steps"]
            if not step.startswith(("cp ", "gzip "))
        ]
        for file, about in making["files"].items():
            name = file.partition(".")[0]
            own = [
                step
                for step in computed
                if re.search(rf"/{re.escape(name)}(?![\w-])", step)
            ]
            day = date.fromisoformat(about["date"])
            made = f"`{(own or computed)[-1]}` on {day.day} {day:%B %Y}"
            if "measured_on" in making:
                made += f" (measured on {making['measured_on']})"
            out.setdefault(name, made)
    return out


def stored(tags: list[str]) -> list[str]:
    """The names of the stored files that a cell's tags say it shows."""
    return [tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)]


def shown(tree: ast.Module) -> list[ast.expr]:
    """What a cell puts on the page: the arguments of every `print` outside a function, and the
    expression at its end."""
    found: list[ast.expr] = []
    outside = [
        statement
        for statement in tree.body
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
    ]
    for statement in outside:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and _name(node) == "print":
                found += node.args
    last = outside[-1] if outside else None
    if isinstance(last, ast.Expr) and not (
        isinstance(last.value, ast.Call) and _name(last.value) == "print"
    ):
        found.append(last.value)
    return found


def _name(call: ast.Call) -> str:
    """What is called, without the object whose method it is."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def only_source(source: str) -> bool:
    """Whether all that a cell shows is source code, found by `inspect.getsource`."""
    parts = shown(ast.parse(source))
    calls = [
        {_name(node) for node in ast.walk(part) if isinstance(node, ast.Call)}
        for part in parts
    ]
    return bool(parts) and all(
        "getsource" in names and names <= SOURCE for names in calls
    )


def line(cell: Mapping[str, Any], made: Mapping[str, str]) -> str:
    """What is said under a code cell, as a Markdown block; nothing if there is nothing to say."""
    tags = cell["metadata"].get("tags", [])
    source = "".join(cell["source"])
    said = "".join(
        "".join(output.get("text", ["?"])) for output in cell["outputs"]
    )
    if (
        not said
        or HIDDEN & set(tags)
        or said.strip() == UNWRITTEN
        or only_source(source)
    ):
        return ""
    if names := stored(tags):
        each = list(dict.fromkeys(made[name] for name in names))
        text = f"Stored: made by {'; and by '.join(each)}."
    else:
        text = "Computed on this page."
    return f":::{{div}} origin\n{text}\n:::"


def add(app: Any, _name: str, source: list[str]) -> None:
    """Put the lines into a chapter's notebook, each as a cell of its own."""
    if not source[0].startswith("{"):
        return
    notebook = json.loads(source[0])
    made = records(Path(app.srcdir) / "results" / "made.json")
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        cells.append(cell)
        if cell["cell_type"] == "code" and (text := line(cell, made)):
            cells.append(
                {
                    "cell_type": "markdown",
                    "id": f"origin-{number}",
                    "metadata": {},
                    "source": [text],
                }
            )
    notebook["cells"] = cells
    source[0] = json.dumps(notebook)


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("source-read", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
