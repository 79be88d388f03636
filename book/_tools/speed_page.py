"""A Sphinx directive that shows what `benchmarks/` measured of the package and its peers.

```{benchmarks}
bm25-1806: BM25 on 1,806 passages
fid-1: FiD with one passage
```

Each line names a section of `results/benchmarks.json` and what the page calls it. The directive says
in sentences where ragbook is slower, where it is faster, and where no difference is shown, draws all
ratios with their intervals, and has a table. Sections that are not in the file are listed first, as not
measured yet.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import origins
from docutils import nodes
from docutils.statemachine import StringList
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from sphinx.util.docutils import SphinxDirective

from ragbook.evaluation.names import capital, listed
from ragbook.figures import (
    BLUE,
    INK,
    STYLE,
    VERMILLION,
    CheckedFigure,
)

SLOWER, FASTER, ALIKE, UNEQUAL = "slower", "faster", "no difference", "unequal"
LOOKS = {
    SLOWER: ("ragbook is slower", VERMILLION, "D"),
    FASTER: ("ragbook is faster", BLUE, "o"),
    ALIKE: ("no difference is shown", INK, "s"),
}


class Row(NamedTuple):
    """A side of a stored section beside the peer that it was compared with."""

    name: str
    side: str
    section: Mapping[str, Any]

    @property
    def ratio(self) -> tuple[float, float, float]:
        """The side's CPU time as a multiple of the peer's, and its interval, in the three digits
        that are shown."""
        value = self.section["sides"][self.side]["times_the_base"]
        middle, low, high = (
            float(f"{each:.3g}") for each in (value["median"], *value["ci95"])
        )
        return middle, low, high

    @property
    def verdict(self) -> str:
        """What the interval says, if the results are equal."""
        difference = self.section["difference"]
        if difference and difference["found"] > difference["allowed"]:
            return UNEQUAL
        _, low, high = self.ratio
        return SLOWER if low > 1 else FASTER if high < 1 else ALIKE

    @property
    def peer(self) -> str:
        """What it was compared with, and in which version."""
        base, versions = self.section["base"], self.section["versions"]
        parts = [f"{name} {version}" for name, version in versions.items()]
        if list(versions) == [base]:
            return parts[0]
        return f"{base} ({', '.join(parts)})" if parts else base

    @property
    def label(self) -> str:
        """The section's name, and the side's if the section has several."""
        kind = self.side.removeprefix("ragbook").strip()
        return f"{self.name}, {kind}" if kind else self.name


def rows(
    stored: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]
) -> list[Row]:
    """All that was compared with a peer, in the order of `names`.

    Raises
    ------
    ValueError: `names` lacks a section that is stored.
    """
    if unknown := sorted(stored.keys() - names.keys()):
        raise ValueError(f"the page names no section {listed(unknown)}")
    return [
        Row(name, side, stored[key])
        for key, name in names.items()
        if key in stored
        for side in stored[key]["sides"]
        if side != stored[key]["base"]
    ]


def interval(value: Sequence[float]) -> str:
    """A median with its interval, three digits of each."""
    middle, low, high = (f"{each:#.3g}".rstrip(".") for each in value)
    return f"{middle} [{low}, {high}]"


def sentences(found: Sequence[Row]) -> str:
    """What the ratios say, those where ragbook is slower first, as Markdown."""
    kinds = {
        kind: sorted(
            (row for row in found if row.verdict == kind),
            key=lambda row: -row.ratio[0],
        )
        for kind in (SLOWER, ALIKE, FASTER, UNEQUAL)
    }
    if not found:
        return "No comparison is stored yet."
    leads = {
        SLOWER: "ragbook takes more CPU time than its peer",
        ALIKE: "the interval includes 1, so no difference is shown",
        FASTER: "ragbook takes less CPU time than its peer",
        UNEQUAL: "the results of the two are not equal, so their times are not compared",
    }
    parts = []
    for kind, lead in leads.items():
        n = len(kinds[kind])
        if n:
            parts.append(f"**In {n} of {len(found)} comparisons {lead}:**")
            parts.append("\n".join(_item(row, kind) for row in kinds[kind]))
        elif kind == SLOWER:
            parts.append("In no comparison is ragbook shown to be slower.")
    return "\n\n".join(parts)


def _item(row: Row, kind: str) -> str:
    if kind == UNEQUAL:
        return f"* {capital(row.label)}: {_equality(row)}."
    return (
        f"* {capital(row.label)}: {interval(row.ratio)} times the CPU time of "
        f"{row.peer}."
    )


def setups(found: Sequence[Row]) -> str:
    """On what was measured, as Markdown."""
    by_setup: dict[str, list[str]] = {}
    for row in found:
        own = row.section["machine"]
        threads = f"{own['threads']} thread{'s' * (own['threads'] != 1)}"
        setup = (
            f"on {own['processor']} with {threads}, Python {own['python']}, "
            f"PyTorch {own['torch']} and ragbook {own['ragbook']}"
        )
        by_setup.setdefault(setup, []).append(row.name)
    said = [
        f"Measured {setup}: {listed(list(dict.fromkeys(each)))}."
        for setup, each in by_setup.items()
    ]
    if len(by_setup) == 1:
        (setup,) = by_setup
        said = [f"All of this was measured {setup}."]
    return " ".join(said)


def missing(found: Sequence[Row], names: Iterable[str]) -> str:
    """Which comparisons of the page are not stored, as Markdown; empty if all are."""
    measured = {row.name for row in found}
    without = [name for name in names if name not in measured]
    return f"**Not measured yet:** {listed(without)}." if without else ""


def table(found: Iterable[Row]) -> str:
    """Every comparison with its seconds, as a Markdown table."""
    lines = [
        "| what | peer | peer's CPU seconds | ragbook's CPU seconds | ratio | rounds | results |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        seconds = [
            f"{row.section['sides'][side]['cpu_seconds']['median']:.3g}"
            for side in (row.section["base"], row.side)
        ]
        what = f"{capital(row.label)}: {row.section['what']}"
        ratio, rounds = interval(row.ratio), row.section["rounds"]
        cells = (what, row.peer, *seconds, ratio, str(rounds), _equality(row))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _equality(row: Row) -> str:
    """What was checked of the results, and the outcome."""
    difference = row.section["difference"]
    if difference is None:
        return "none to compare"
    equal = "not equal" if row.verdict == UNEQUAL else "equal"
    return f"{equal} ({difference['of']}: {difference['found']:g})"


def figure(found: Iterable[Row]) -> CheckedFigure:
    """Every ratio with its interval on a logarithmic axis, the first on top; what is compared only
    where the results are equal."""
    drawn = [row for row in found if row.verdict in LOOKS]
    with matplotlib.rc_context(STYLE):
        size = (6.6, 1.3 + 0.26 * len(drawn))
        picture = Figure(figsize=size, layout="constrained")
        axes = picture.subplots()
        axes.grid(axis="x")
        axes.axvline(1, color=INK, linewidth=1)
        for kind, (label, colour, marker) in LOOKS.items():
            at = [n for n, row in enumerate(drawn) if row.verdict == kind]
            if not at:
                continue
            middle, low, high = zip(*(drawn[n].ratio for n in at), strict=True)
            pairs = list(zip(middle, low, high, strict=True))
            axes.errorbar(
                middle,
                at,
                xerr=[
                    [m - a for m, a, _ in pairs],
                    [b - m for m, _, b in pairs],
                ],
                fmt=marker,
                color=colour,
                markersize=4.8,
                elinewidth=1.2,
                label=label,
            )
        ends = [1.0, *(end for row in drawn for end in row.ratio)]
        axes.set_xscale("log")
        axes.set_xlim(min(ends) / 1.2, max(ends) * 1.2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.minorticks_off()
        names = [row.label.replace("`", "") for row in drawn]
        axes.set_yticks(range(len(drawn)), labels=names)
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("CPU time, ragbook's / the peer's (95 % intervals)")
        picture.legend(loc="outside upper center", ncols=3)
    return CheckedFigure(picture)


def picture(found: Sequence[Row]) -> str:
    """The figure as HTML that holds its picture."""
    png = figure(found)._repr_png_()
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    said = "; ".join(f"{row.label}: {interval(row.ratio)}" for row in found)
    alt = escape(f"Ratios with intervals. {said}".replace("`", ""), quote=True)
    return (
        f'<div class="cell_output"><figure><img alt="{alt}" src="{source}">'
        "<figcaption>CPU time of ragbook as a multiple of its peer's: medians with 95 % "
        "intervals. Left of the line at 1 ragbook is faster.</figcaption></figure></div>"
    )


def made(found: Iterable[Row]) -> str:
    """The commands that measured all this, and when."""
    return origins.told(
        origins.Record(
            row.section["command"],
            date.fromisoformat(row.section["machine"]["date"]),
            "",
        )
        for row in found
    )


class Benchmarks(SphinxDirective):
    """The directive; an error if the page does not name a stored section."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Sentences, the figure, the table and how they were made."""
        path = Path(self.env.srcdir) / "results" / "benchmarks.json"
        self.env.note_dependency(str(path))
        stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
        names = dict(
            line.split(": ", 1) for line in self.content if ": " in line
        )
        try:
            found = rows(stored, names)
        except ValueError as error:
            raise self.error(str(error)) from None
        first = (
            f"{missing(found, names.values())}\n\n{sentences(found)}"
            f"\n\n{setups(found)}"
        )
        if not found:
            return self._parsed(first)
        drawn = nodes.raw("", picture(found), format="html")
        return [
            *self._parsed(first),
            drawn,
            *self._parsed(f"{table(found)}\n\n{made(found)}"),
        ]

    def _parsed(self, text: str) -> list[nodes.Node]:
        node = nodes.container()
        self.state.nested_parse(StringList(text.splitlines()), 0, node)
        return node.children


def setup(app: Any) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("benchmarks", Benchmarks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
