"""Differences of methods in pairs as a figure, with their intervals and what is significant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ragbook.evaluation.statistics import ALPHA
from ragbook.figures import COLOURS, FAINT, INK, MARKERS, STYLE, CheckedFigure


def differences(
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]], xlabel: str
) -> CheckedFigure:
    """A row for each pair, a colour for each table: the difference in points and its interval. A
    filled mark is significant, a hollow one is not.

    Args:
        tables: for each table's name, `experiments.papers.pairs` of it; all have the same pairs.
    """
    pairs = list(next(iter(tables.values())))
    step = 0.8 / len(tables)
    with matplotlib.rc_context(STYLE):
        size = (6.6, 1.2 + 0.17 * len(pairs) * (len(tables) + 1))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="x")
        for number, (name, tests) in enumerate(tables.items()):
            shift = (number - (len(tables) - 1) / 2) * step
            for filled in (True, False):
                rows = [
                    row
                    for row, pair in enumerate(pairs)
                    if (tests[pair]["p"] < ALPHA) == filled
                ]
                if not rows:
                    continue
                found = [tests[pairs[row]] for row in rows]
                mean = 100 * np.array([test["difference"] for test in found])
                low, high = 100 * np.array([test["ci95"] for test in found]).T
                axes.errorbar(
                    mean, np.array(rows) + shift, xerr=[mean - low, high - mean],
                    fmt=MARKERS[number], color=COLOURS[number], markersize=4.8,
                    elinewidth=1.2, capsize=0,
                    markerfacecolor=COLOURS[number] if filled else "white",
                    label=name if filled else f"{name}, not significant",
                )  # fmt: skip
        axes.axvline(0, color=INK, linestyle=":", linewidth=1)
        for row in range(1, len(pairs)):
            axes.axhline(row - 0.5, color=FAINT, linewidth=0.7)
        axes.set_yticks(range(len(pairs)), labels=pairs)
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{xlabel} (95 % intervals)")
        figure.legend(loc="outside upper center", ncols=2)
    return CheckedFigure(figure)
