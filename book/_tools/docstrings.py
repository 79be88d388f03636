r"""A Sphinx extension that turns the package's docstrings into reStructuredText.

They are written to be read in the code: sections are underlined, code stands in single backticks,
formulas between `\(` and `\)` or, on lines of their own, `\[` and `\]`, and tables have bars.
"""

import re
import textwrap
from typing import Any

FIELDS = {
    "Parameters": "param",
    "Attributes": "ivar",
    "Raises": "raises",
    "Returns": "returns",
}
SECTION = re.compile(rf"^({'|'.join(FIELDS)})\n-{{3,}}\n", re.M)
TABLE = re.compile(
    r"^(?P<head>\|.*\|)\n\|(?:-+\|)+\n(?P<rows>(?:\|.*\|\n?)+)", re.M
)
ENTRY = re.compile(r"^([\w.*`, -]+?): ")


def restructured(text: str) -> str:
    """The docstring `text`, without the indentation of its code, as reStructuredText."""
    kept: list[
        str
    ] = []  # what must not be changed any more, in the order of its marks

    def keep(piece: str) -> str:
        kept.append(piece)
        return f"\0{len(kept) - 1}\0"

    def displayed(match: re.Match[str]) -> str:
        indent = match["indent"]
        formula = textwrap.indent(
            textwrap.dedent(match["formula"]).strip(), f"{indent}   "
        )
        return keep(f"\n{indent}.. math::\n\n{formula}\n") + "\n"

    def inline(match: re.Match[str]) -> str:
        return keep(f":math:`{' '.join(match[1].split())}`")

    text = TABLE.sub(_listed, text)
    text = re.sub(
        r"^(?P<indent> *)\\\[(?P<formula>.*?)\\\](?P<after>[^\n]*)\n?",
        lambda m: (
            displayed(m)
            + (m["indent"] + m["after"].strip() + "\n" if m["after"] else "")
        ),
        text,
        flags=re.M | re.S,
    )
    text = re.sub(r"\\\((.+?)\\\)", inline, text, flags=re.S)
    text = re.sub(
        r"``.+?``|:[\w:]+:`.+?`", lambda m: keep(m[0]), text, flags=re.S
    )
    text = re.sub(
        r"`([^`\0]+)`", lambda m: keep(f"``{' '.join(m[1].split())}``"), text
    )
    parts = SECTION.split(text)
    out = [parts[0]]
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        out.append(_fields(name, body))
    text = "".join(out)
    while "\0" in text:  # a formula may stand inside what was kept
        text = re.sub(r"\0(\d+)\0", lambda m: kept[int(m[1])], text)
    return text


def _listed(table: re.Match[str]) -> str:
    """A table with bars as a list of lists."""
    lines = [table["head"], *table["rows"].strip().split("\n")]
    out = [".. list-table::", "   :header-rows: 1", ""]
    for line in lines:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        out += [
            f"   {'*' if not at else ' '} - {cell}"
            for at, cell in enumerate(cells)
        ]
    return "\n".join(out) + "\n"


def _fields(name: str, body: str) -> str:
    """A section's entries as a field list; what follows an empty line at its edge is no entry."""
    field = FIELDS[name]
    entries, rest = [], ""
    lines = body.split("\n")
    for at, line in enumerate(lines):
        starts = bool(line) and not line[0].isspace()
        if (
            starts
            and at
            and not lines[at - 1].strip()
            and (name == "Returns" or not _named(line))
        ):
            rest = "\n" + "\n".join(lines[at:])
            break
        if starts and field == "returns" and not entries:
            entries.append(f":returns: {line}")
        elif starts and field != "returns" and _named(line):
            keys, _, says = line.partition(": ")
            *others, last = re.sub(r"[`*]", "", keys).split(", ")
            entries += [f":{field} {other}: see {last}" for other in others]
            entries.append(f":{field} {last}: {says}")
        else:
            entries.append(f"    {line.strip()}" if line.strip() else "")
    return "\n".join(entries).rstrip() + "\n" + rest + "\n"


def _named(line: str) -> bool:
    return ENTRY.match(line) is not None


def process(
    _app: Any,
    _what: str,
    _name: str,
    _object: Any,
    _options: Any,
    lines: list[str],
) -> None:
    """Rewrite one docstring, in place, as autodoc wants it."""
    lines[:] = restructured("\n".join(lines)).split("\n")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension, before napoleon, which reads the sections named with a colon."""
    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
