"""A Sphinx extension that says under a cell's output where it comes from.

A code cell with the tag ``stored-NAME`` shows what was measured once and is kept in
``results/NAME.json``: the line below it names the command and the date, from ``results/made.json``.
Below every other output is said that it was computed on the page. Cells that only print source
code, hidden cells and exercises that are not written yet have no such line.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

TAG = "stored-"
HIDDEN = {"remove-cell", "remove-output", "hide-cell", "hide-output"}
SOURCE = {
    "getsource",
    "source",
    "split",
    "strip",
    "dedent",
    "print",
    "Markdown",
}
UNWRITTEN = "Not written yet."


class Record(NamedTuple):
    """How a stored file was made: the last command that computed it, the day and, if that is no
    longer current, what it was measured on."""

    command: str
    day: date
    measured_on: str

    def __str__(self) -> str:
        old = f" (measured on {self.measured_on})" if self.measured_on else ""
        return f"`{self.command}` on {_dated(self.day)}{old}"


def _dated(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def records(path: Path) -> dict[str, Record]:
    """How each stored file was made, by its name without suffixes."""
    out: dict[str, Record] = {}
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
            record = Record(
                (own or computed)[-1],
                date.fromisoformat(about["date"]),
                making.get("measured_on", ""),
            )
            out.setdefault(name, record)
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
    """Whether all that a cell shows is source code, found by `inspect.getsource` or
    `experiments.source.source`."""
    parts = [
        part
        for part in shown(ast.parse(source))
        if not isinstance(part, ast.Constant)
    ]
    calls = [
        {_name(node) for node in ast.walk(part) if isinstance(node, ast.Call)}
        for part in parts
    ]
    return bool(parts) and all(
        names & {"getsource", "source"} and names <= SOURCE for names in calls
    )


def line(cell: Mapping[str, Any], made: Mapping[str, Record]) -> str:
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
    each = [made[name] for name in stored(tags)]
    return told(each) if each else _block("Computed on this page.")


def told(each: Iterable[Record]) -> str:
    """How the stored files or parts of one that something shows were made, as a Markdown block."""
    records = list(dict.fromkeys(each))
    if len(records) == 1:
        return _block(f"Stored: made by {records[0]}.")
    first, last = min(r.day for r in records), max(r.day for r in records)
    when = f"on {_dated(first)}"
    if first != last:
        when = f"from {_dated(first)} to {_dated(last)}"
    listed = "\n".join(f"* {record}" for record in records)
    return (
        '<details class="origin">\n'
        f"<summary>Stored: made by {len(records)} commands {when}</summary>\n\n"
        f"{listed}\n\n</details>"
    )


def _block(text: str) -> str:
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
