"""One table in four forms: Markdown, LaTeX, HTML, and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from ragbook.printable import printable

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Cell:
    """`text`, bold if it is the `best` of its column, then `detail` (in brackets) and `marks`."""

    text: str
    detail: str = ""
    marks: str = ""
    best: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table's `header`, its `rows` of as many cells, and its `caption`.

    The first column names the rows. On a narrow terminal the columns of `wrapped` may be broken
    into lines.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str
    wrapped: Sequence[str] = ()

    def _repr_html_(self) -> str:
        return self.html()

    def markdown(self) -> str:
        """A Markdown table with its caption below."""

        def render(cell: Cell) -> str:
            text = _markdown(cell.text)
            return _joined(f"**{text}**" if cell.best else text, cell.detail, cell.marks)

        header = [_markdown(name) for name in self.header]
        lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
        lines += [[render(cell) for cell in row] for row in self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"{table}\n\n{_harmless(self.caption)}\n"

    def latex(self) -> str:
        """A LaTeX table environment; the document needs the package booktabs."""

        def render(cell: Cell) -> str:
            text = rf"\textbf{{{_tex(cell.text)}}}" if cell.best else _tex(cell.text)
            return _joined(text, _tex(cell.detail), _tex(cell.marks))

        lines = [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_tex(self.caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
            r"\toprule",
            " & ".join(map(_tex, self.header)) + r" \\",
            r"\midrule",
            *(" & ".join(map(render, row)) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """An HTML table with its caption."""

        def render(cell: Cell) -> str:
            text = escape(cell.text)
            return _joined(f"<b>{text}</b>" if cell.best else text, cell.detail, cell.marks)

        head = "".join(f"<th>{escape(name)}</th>" for name in self.header)
        body = "".join(
            "<tr>" + "".join(f"<td>{render(cell)}</td>" for cell in row) + "</tr>\n"
            for row in self.rows
        )
        return (
            f"<table>\n<caption>{escape(self.caption)}</caption>\n"
            f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
        )

    def terminal(self) -> Table:
        """A rich table, its caption below, details on lines of their own."""
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=None,
            collapse_padding=True,
            pad_edge=False,
            caption=Text(printable(self.caption)),
            caption_justify="left",
        )
        for i, name in enumerate(self.header):
            wrap = name in self.wrapped
            shown = Text(printable(name))
            table.add_column(shown, justify="right" if i else "left", no_wrap=not wrap)
        for row in self.rows:
            table.add_row(
                *(
                    Text.assemble(
                        (printable(cell.text), "bold" if cell.best else ""),
                        f" {cell.marks}" if cell.marks else "",
                        f"\n{cell.detail}" if cell.detail else "",
                    )
                    for cell in row
                )
            )
        return table


def _markdown(text: str) -> str:
    """A cell of a Markdown table."""
    return _harmless(text).replace("|", "\\|")


def _harmless(text: str) -> str:
    """Markdown in which nothing is a tag or an entity of HTML, on one line."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", printable(text))
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _joined(*parts: str) -> str:
    text, detail, marks = parts
    return text + (f" {detail}" if detail else "") + (f" {marks}" if marks else "")


_TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {
        "<": r"$<$",
        "|": r"$|$",
        "∞": r"$\infty$",
        "–": "--",
        "†": r"$^{\dagger}$",
        "‡": r"$^{\ddagger}$",
    }
)


def _tex(text: str) -> str:
    return printable(text).translate(_TEX)
