"""One question as two retrievers see it: the words that it shares with passages, and the vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ragbook.figures import BLUE, FAINT, INK, STYLE, VERMILLION, CheckedFigure


def plane(query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Passages' vectors in two dimensions: float [N, 2], the inner product with the question, which
    is exact, and what remains along its first principal component.

    Args:
        query: [d], of length 1.
        vectors: [N, d].
    """
    scores = vectors @ query
    rest = vectors - scores[:, None] * query
    rest = rest - rest.mean(0)
    (axis, *_) = np.linalg.svd(rest.astype(np.float64), full_matrices=False)[2]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])  # its sign is arbitrary
    return np.stack([scores, rest @ axis], axis=1)


def two_views(
    words: Sequence[str],
    shared: Mapping[str, Sequence[float]],
    names: Sequence[str],
    points: np.ndarray,
) -> CheckedFigure:
    """What each word of a question adds to two passages' BM25 scores, beside the vectors of the
    question and of some passages.

    Args:
        words: of the question.
        shared: for each of two passages, what each word adds.
        names: of the passages in the plane, the two among them.
        points: their coordinates, as `plane` gives them.
    """
    colours = dict(zip(shared, (BLUE, VERMILLION), strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
        _words(left, words, shared, colours)
        right.set_title("MiniLM: one vector each")
        right.grid()
        right.plot([1], [0], "*", color=INK, markersize=11, label="question")
        right.text(1.03, -0.05, "question", ha="right", va="top", fontsize=8)
        for name, (x, y) in zip(names, points.tolist(), strict=True):
            colour = colours.get(name, "#666666")
            right.plot([x], [y], "o", color=colour, markersize=5, label=name)
            side = -1 if x > 0.7 else 1  # where there is room
            right.text(
                x + 0.02 * side,
                y,
                name,
                ha="right" if side < 0 else "left",
                va="center",
                color=colour,
                fontsize=7.5,
            )
        right.set_xlim(0, 1.05)
        right.margins(y=0.15)
        right.set_xlabel("inner product with the question")
        right.set_ylabel("the passages' main other direction")
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside upper left",
            ncols=2,
        )
    return CheckedFigure(figure)


def _words(
    axes: Axes,
    words: Sequence[str],
    shared: Mapping[str, Sequence[float]],
    colours: Mapping[str, str],
) -> None:
    """Two bars for each word and for their sum."""
    axes.grid(axis="x")
    rows = np.arange(len(words) + 1)
    for side, (name, added) in zip((-0.2, 0.2), shared.items(), strict=True):
        values = [*added, sum(added)]
        axes.barh(
            rows + side, values, height=0.36, color=colours[name], label=name
        )
        axes.text(
            values[-1],
            len(words) + side,
            f" {values[-1]:.2f}",
            va="center",
            color=colours[name],
            fontsize=7.5,
        )
    axes.axhline(len(words) - 0.5, color=FAINT, linewidth=0.8)
    axes.set_yticks(rows, labels=[*words, "sum"])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_title("BM25: what each word adds")
    axes.set_xlabel("score")
    axes.margins(x=0.2)
