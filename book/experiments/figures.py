"""The figures of the chapters: numbers in, a checked figure out; see `ragbook.figures`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ragbook.figures import (
    BLUE,
    COLOURS,
    FAINT,
    INK,
    MARKERS,
    STYLE,
    VERMILLION,
    CheckedFigure,
)

ORDER = (
    "closed-book",
    "knn-lm",
    "realm",
    "rag-sequence",
    "rag-token",
    "fid",
    "in-context",
)
"""The methods in the order of the colours, so that each looks the same in every figure."""

__all__ = [
    "CheckedFigure",
    "attention_mask",
    "bars",
    "calibration",
    "curves",
    "grouped",
    "heat_map",
    "lines",
    "places",
    "recall_curve",
    "trade_off",
]


def recall_curve(recall: Mapping[str, Mapping[int, float]]) -> CheckedFigure:
    """Recall@k against k, one line for each retriever.

    Args:
        recall: for each retriever's name, recall@k (0..1) by k; shown as percentages.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.grid()
        for name, (colour, marker) in _looks(recall).items():
            ks = sorted(recall[name])
            percent = [100 * recall[name][k] for k in ks]
            axes.plot(
                ks,
                percent,
                color=colour,
                marker=marker,
                markersize=5,
                label=name,
            )
        ticks = sorted({k for curve in recall.values() for k in curve})
        axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[str(k) for k in ticks])
        axes.minorticks_off()
        axes.set_xlabel("k, passages retrieved")
        axes.set_ylabel("recall@k (% of questions)")
        axes.legend(loc="lower right")
    return CheckedFigure(figure)


def lines(
    series: Mapping[str, Mapping[float, float]],
    xlabel: str,
    ylabel: str,
    log: bool = False,
    log_y: bool = False,
) -> CheckedFigure:
    """Several curves over the same quantity, one line each.

    Args:
        series: for each curve's name, y by x.
        log: a logarithmic x axis, with ticks at the x of the data.
        log_y: a logarithmic y axis.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.grid()
        for name, (colour, marker) in _looks(series).items():
            xs = sorted(series[name])
            ys = [series[name][x] for x in xs]
            axes.plot(
                xs, ys, color=colour, marker=marker, markersize=5, label=name
            )
        if log:
            ticks = sorted({x for curve in series.values() for x in curve})
            axes.set_xscale("log")
            axes.set_xticks(ticks, labels=[f"{x:g}" for x in ticks])
            axes.minorticks_off()
        if log_y:
            axes.set_yscale("log")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        if len(series) > 1:
            axes.legend()
    return CheckedFigure(figure)


def bars(values: Mapping[str, float], xlabel: str) -> CheckedFigure:
    """One horizontal bar for each name, the first on top."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(6.2, 0.9 + 0.32 * len(values)), layout="constrained"
        )
        axes = figure.subplots()
        axes.grid(axis="x")
        axes.barh(list(values), list(values.values()), color=BLUE, height=0.6)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(xlabel)
    return CheckedFigure(figure)


def heat_map(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str
) -> CheckedFigure:
    """A matrix as colours, light for small values, each cell's value written into it.

    Args:
        values: [len(rows), len(columns)].
    """
    with matplotlib.rc_context(STYLE):
        size = (2.2 + 0.52 * len(columns), 1.3 + 0.36 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.imshow(values, cmap="Blues", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for row, column in np.ndindex(*values.shape):
            value = float(values[row, column])
            colour = "white" if value > middle else INK
            shown = f"{value:.2f}".replace("-0.00", "0.00")
            axes.text(
                column,
                row,
                shown,
                ha="center",
                va="center",
                color=colour,
                fontsize=7,
            )
        axes.set_xticks(
            range(len(columns)), labels=list(columns), rotation=45, ha="right"
        )
        axes.set_yticks(range(len(rows)), labels=list(rows))
        axes.set_title(label)
        axes.tick_params(length=0)
    return CheckedFigure(figure)


def attention_mask(
    encoder: np.ndarray,
    decoder: np.ndarray,
    tokens: Sequence[str],
    answer: Sequence[str],
) -> CheckedFigure:
    """Which token, a row, attends to which, a column: of an encoder above, of a decoder below.

    Args:
        encoder: [P, P], above 0 where the token of the row attends to that of the column.
        decoder: [len(answer), P], the same for the tokens of an answer.
        tokens: the P tokens that are read.
    """
    with matplotlib.rc_context(STYLE):
        size = (1.2 + 0.15 * len(tokens), 1.5 + 0.15 * (len(tokens) + 2))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(
            2, 1, sharex=True, height_ratios=(len(tokens), len(answer))
        )
        for panel, values, rows, colour, title in zip(
            panels,
            (encoder, decoder),
            (tokens, answer),
            (BLUE, VERMILLION),
            ("encoder", "decoder"),
            strict=True,
        ):
            panel.imshow(
                np.asarray(values) > 0,
                cmap=ListedColormap(["white", colour]),
                vmin=0,
                vmax=1,
                aspect="auto",
            )
            panel.set_yticks(range(len(rows)), labels=list(rows))
            panel.set_title(title)
            panel.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
            panel.set_xticks(np.arange(1, len(tokens)) - 0.5, minor=True)
            panel.grid(which="minor", color="white")
            panel.tick_params(which="both", length=0, labelsize=7)
        panels[1].set_xticks(
            range(len(tokens)), labels=list(tokens), rotation=90
        )
    return CheckedFigure(figure)


def grouped(
    groups: Mapping[str, Mapping[str, Mapping[str, Any]]], xlabel: str
) -> CheckedFigure:
    """Means with their intervals: a row for each group, the first on top, a colour for each name.

    Args:
        groups: for each row's name, ``{name: {"mean": float, "ci95": (low, high)}}``; shares in
            0..1 are shown as percentages. A name may be missing from a group.
    """
    names = list(
        dict.fromkeys(name for group in groups.values() for name in group)
    )
    step = 0.8 / max(len(names), 1)
    with matplotlib.rc_context(STYLE):
        size = (6.6, 1.2 + 0.17 * len(groups) * (len(names) + 1))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="x")
        for number, (name, (colour, marker)) in enumerate(
            _looks(names).items()
        ):
            rows = [
                row
                for row, group in enumerate(groups.values())
                if name in group
            ]
            entries = [
                group[name] for group in groups.values() if name in group
            ]
            at = np.array(rows) + (number - (len(names) - 1) / 2) * step
            _intervals(axes, entries, at, colour, marker, name, across=True)
        for row in range(1, len(groups)):
            axes.axhline(row - 0.5, color=FAINT, linewidth=0.7)
        axes.set_yticks(range(len(groups)), labels=list(groups))
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{xlabel} (%, 95 % intervals)")
        _legend_above(figure, names)
    return CheckedFigure(figure)


def curves(
    series: Mapping[str, Mapping[float, Mapping[str, Any]]],
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> CheckedFigure:
    """Means with their intervals over the same quantity, one line each.

    Args:
        series: for each line's name, ``{x: {"mean": float, "ci95": (low, high)}}``; shares in 0..1
            are shown as percentages.
        log: a logarithmic x axis, with ticks at the x of the data.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.grid()
        ticks = sorted({x for curve in series.values() for x in curve})
        for number, (name, (colour, marker)) in enumerate(
            _looks(series).items()
        ):
            xs = sorted(series[name])
            entries = [series[name][x] for x in xs]
            # Shifted a little, so that no interval hides another.
            shift = (number - (len(series) - 1) / 2) * 0.012
            at = (
                np.array(xs) * 10**shift
                if log
                else np.array(xs) + shift * (ticks[-1] - ticks[0])
            )
            axes.plot(
                at,
                [100 * e["mean"] for e in entries],
                color=colour,
                linewidth=1,
            )
            _intervals(axes, entries, at, colour, marker, name, across=False)
        if log:
            axes.set_xscale("log")
        axes.set_xticks(ticks, labels=[f"{x:g}" for x in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(f"{ylabel} (%, 95 % intervals)")
        _legend_above(figure, series)
    return CheckedFigure(figure)


def trade_off(
    points: Mapping[str, tuple[float, Mapping[str, Any]]],
    front: Sequence[str],
    xlabel: str,
) -> CheckedFigure:
    """Accuracy against cost: a point for each method, and a line through those that no other beats.

    Args:
        points: for each name, the cost and ``{"mean": float, "ci95": (low, high)}`` of exact match
            in 0..1, shown as a percentage.
        front: names on the line, by cost.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.2, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.grid()
        for name, (colour, marker) in _looks(points).items():
            cost, entry = points[name]
            _intervals(
                axes,
                [entry],
                np.array([cost]),
                colour,
                marker,
                name,
                across=False,
            )
        axes.plot(
            [points[name][0] for name in front],
            [100 * points[name][1]["mean"] for name in front],
            color=INK,
            linestyle=":",
            linewidth=1.2,
            zorder=1,
            label="beaten by none",
        )
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("exact match (%)")
        figure.legend(loc="outside upper center", ncols=4)
    return CheckedFigure(figure)


def calibration(found: Mapping[str, Mapping[str, Any]]) -> CheckedFigure:
    """Probability of the answers against the share that is right, a panel for each method; on the
    diagonal the two agree.

    Args:
        found: for each method, the result of :func:`ragbook.evaluation.breakdown.calibration`.
    """
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    with matplotlib.rc_context(STYLE):
        size = (2.3 * columns + 0.4, 2.3 * rows + 0.3)
        figure = Figure(figsize=size, layout="constrained")
        panels = np.ravel(
            figure.subplots(
                rows, columns, sharex=True, sharey=True, squeeze=False
            )
        )
        for panel, (name, entry) in zip(panels, found.items(), strict=False):
            panel.grid()
            panel.plot([0, 1], [0, 100], color=INK, linestyle=":", linewidth=1)
            groups = entry["groups"]
            at = np.array([group["probability"] for group in groups])
            _intervals(panel, groups, at, BLUE, "o", None, across=False)
            panel.set_title(f"{name}, error {entry['error']:.3f}")
        for panel in panels[len(found) :]:
            panel.set_visible(False)
        figure.supxlabel("mean probability of the answers", fontsize=9)
        figure.supylabel("right (%, 95 % intervals)", fontsize=9)
    return CheckedFigure(figure)


def places(stages: Sequence[tuple[str, str, str]]) -> CheckedFigure:
    """Stages from left to right: what a model computes and which method combines passages there, or
    what becomes of passages until they are found.

    Args:
        stages: for each its name, a few words on it, and what is written above it (a method's name
            brings its colour).
    """
    width = 1.5
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(width * len(stages), 1.6), layout="constrained"
        )
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_xlim(-0.5, len(stages) - 0.5)
        axes.set_ylim(-1, 1)
        for number, (stage, combined, method) in enumerate(stages):
            colour, _ = _looks([method])[method]
            axes.plot(
                [number - 0.3, number + 0.3],
                [0.62, 0.62],
                color=colour,
                linewidth=3,
                label=method,
            )
            axes.text(
                number,
                0.78,
                method,
                ha="center",
                va="bottom",
                color=INK,
                weight="bold",
            )
            axes.text(number, 0.2, stage, ha="center", va="center", color=INK)
            axes.text(
                number,
                -0.2,
                combined,
                ha="center",
                va="top",
                color=INK,
                fontsize=8,
            )
            if number:
                axes.plot(
                    [number - 0.62, number - 0.38], [0.2, 0.2], color=FAINT, linewidth=1.5,
                    marker=">", markevery=[1], label=f"to {stage}",
                )  # fmt: skip
    return CheckedFigure(figure)


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each name, in their order.

    A method has the same ones in every figure. Other names take the remaining ones, in order; if
    there are more names than colours, colours are used again with other markers.
    """
    names = list(names)
    free = (
        at
        for at in itertools.count()
        if at >= len(ORDER) or ORDER[at] not in names
    )
    places = [
        ORDER.index(name) if name in ORDER else next(free) for name in names
    ]
    return {
        name: (
            COLOURS[at % len(COLOURS)],
            MARKERS[(at + at // len(COLOURS)) % len(MARKERS)],
        )
        for name, at in zip(names, places, strict=True)
    }


def _legend_above(figure: Figure, names: Iterable[str]) -> None:
    """A legend above the axes that is no wider than the figure: three columns, or two of long names."""
    columns = 3 if max(map(len, names), default=0) < 20 else 2
    figure.legend(loc="outside upper center", ncols=columns)


def _intervals(
    axes: Axes,
    entries: Sequence[Mapping[str, Any]],
    at: np.ndarray,
    colour: str,
    marker: str,
    label: str | None,
    across: bool,
) -> None:
    """Points in percent with their intervals, along x if `across`, else along y."""
    mean = 100 * np.array([entry["mean"] for entry in entries], float)
    low, high = (
        100
        * np.array([entry["ci95"] for entry in entries], float).reshape(-1, 2).T
    )
    error = [np.maximum(mean - low, 0), np.maximum(high - mean, 0)]
    axes.errorbar(
        mean if across else at,
        at if across else mean,
        xerr=error if across else None,
        yerr=None if across else error,
        fmt=marker,
        color=colour,
        markersize=4.8,
        elinewidth=1.2,
        capsize=0,
        label=label,
    )
