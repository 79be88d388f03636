"""The comparison's figures, and what makes any figure checked.

A figure is one function that returns a :class:`CheckedFigure`. A reader sees its picture; tests
compare its text form, the plotted numbers read back from matplotlib's own objects. Figures are
drawn without pyplot, so that nothing is displayed twice and no global state changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from ragbook.errors import InputError
from ragbook.evaluation.errors import LABELS
from ragbook.evaluation.lines import scored_number
from ragbook.evaluation.names import row_name
from ragbook.evaluation.statistics import cut_off

DPI = 160
# Okabe and Ito's colours, which colour-blind readers can distinguish, darkest first.
BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#e69f00",
    "#cc79a7",
    "#56b4e9",
)
COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, "#000000")
MARKERS = ("o", "D", "s", "^", "v", "P", "X")
INK, FAINT = "#333333", "#d9d9d9"
YELLOW = "#f0e442"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
# Metadata that would make the files of two identical pictures differ.
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


class CheckedFigure:
    """A matplotlib figure whose text form is the numbers it shows.

    A notebook displays the picture (``_repr_png_``); nbval compares ``repr``: for each axes its
    title, labels and named ticks, then one line for each series with the values that its artists
    hold, rounded to 3 decimals. A changed number, a swapped label or a lost series changes the
    text.

    Lines, points, bars, intervals (error bars), bands, images and texts are known; any other
    artist raises ``TypeError``, so that nothing drawn is left unchecked.

    Args:
        figure: a complete figure, made with ``matplotlib.figure.Figure``.
    """

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    def __repr__(self) -> str:
        return "\n".join(_read_figure(self.figure))

    def _repr_png_(self) -> bytes:
        return self._draw("png")

    def save(self, path: str | Path) -> Path:
        """Write the picture as PNG or PDF, by the path's suffix; every run gives the same bytes.

        Raises:
            ValueError: the suffix is neither ``.png`` nor ``.pdf``.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".")
        if kind not in METADATA:
            raise ValueError(f"a figure is saved as .png or .pdf, not as {path.name!r}")
        path.write_bytes(self._draw(kind))
        return path

    def _draw(self, kind: str) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):  # ticks are created and styled only when drawn
            self.figure.savefig(buffer, format=kind, dpi=DPI, metadata=METADATA[kind])
        return few_colours(buffer.getvalue()) if kind == "png" else buffer.getvalue()


def few_colours(png: bytes) -> bytes:
    """A picture in its 64 most useful colours: enough for a chart on a plain ground, in a quarter
    of the bytes."""
    from PIL import Image

    picture, out = Image.open(io.BytesIO(png)), io.BytesIO()
    few = picture.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=64)
    few.save(out, "PNG", optimize=True, dpi=picture.info["dpi"])
    return out.getvalue()


# --- reading a figure back ------------------------------------------------------------------------


def _read_figure(figure: Figure) -> list[str]:
    lines: list[str] = []
    for child in figure.get_children():
        if child is figure.patch or isinstance(child, Axes) or not child.get_visible():
            continue
        lines.append(_read_artist(child))
    for axes in figure.axes:
        if axes.get_visible():
            lines += _read_axes(axes)
    return lines


def _read_axes(axes: Axes) -> list[str]:
    """The text form of one axes: a heading, then one line for each series, in drawing order."""
    title = axes.get_title("left") or axes.get_title("center") or axes.get_title("right")
    x, y = (_read_axis(axis) for axis in (axes.xaxis, axes.yaxis))
    if axes.get_label() == "<colorbar>":
        limits = " to ".join(_number(limit) for limit in axes.get_ylim())
        return [f"colour bar | {y} | {limits}"]
    lines = [" | ".join(["axes", *([title] if title else []), f"x: {x}", f"y: {y}"])]
    known: set[Artist] = {axes.patch, axes.xaxis, axes.yaxis}
    known.update((axes.title, axes._left_title, axes._right_title))  # type: ignore[attr-defined]
    for container in axes.containers:
        lines += _read_container(container)
        known.update(_artists(container))
    for child in axes.get_children():
        if child in known or isinstance(child, Spine) or not child.get_visible():
            continue
        line = _read_artist(child)
        if line:
            lines.append(line)
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def _read_axis(axis: Axis) -> str:
    """An axis's label, its scale if it is not linear, and its ticks if they have names."""
    parts = [axis.get_label_text()]
    if axis.get_scale() != "linear":
        parts.append(f"({axis.get_scale()})")
    formatter = axis.get_major_formatter()
    # matplotlib has one formatter for named ticks (FuncFormatter) and another for named bars.
    if isinstance(formatter, FuncFormatter | StrCategoryFormatter):
        names = ((at, formatter(at)) for at in axis.get_majorticklocs())
        parts.append("{" + ", ".join(f"{_number(at)}: {name}" for at, name in names) + "}")
    return " ".join(part for part in parts if part)


def _artists(container: Any) -> Iterable[Artist]:
    """Every artist in a container, also in nested tuples (as in error bars)."""
    for item in container:
        if isinstance(item, Artist):
            yield item
        elif item is not None:
            yield from _artists(item)


def _read_container(container: Any) -> list[str]:
    if isinstance(container, BarContainer):
        return [_read_bars(container)]
    if isinstance(container, ErrorbarContainer):
        points, _, intervals = container.lines
        read = [] if points is None else [_read_line(points, _name(container))]
        return read + [_read_segments(each, _name(container), "interval") for each in intervals]
    raise TypeError(f"CheckedFigure can't read a {type(container).__name__}")


def _read_bars(bars: BarContainer) -> str:
    at, length, base = [], [], []
    for bar in bars.patches:
        assert isinstance(bar, Rectangle)
        (x, y), width, height = bar.get_xy(), bar.get_width(), bar.get_height()
        vertical = bars.orientation == "vertical"
        at.append(x + width / 2 if vertical else y + height / 2)
        length.append(height if vertical else width)
        base.append(y if vertical else x)
    text = f"bars{_name(bars)}: at {_numbers(at)} length {_numbers(length)}"
    return text + (f" from {_numbers(base)}" if any(base) else "")


def _read_line(line: Line2D, name: str | None = None) -> str:
    x, y = (np.ma.filled(np.ma.asarray(v, float), np.nan) for v in line.get_data(orig=False))
    return f"line{_name(line) if name is None else name}: x {_numbers(x)} y {_numbers(y)}"


def _read_points(points: PathCollection) -> str:
    x, y = np.ma.filled(np.ma.asarray(points.get_offsets(), float), np.nan).T
    text = f"points{_name(points)}: x {_numbers(x)} y {_numbers(y)}"
    colour, sizes = points.get_array(), points.get_sizes()
    if colour is not None:
        text += f" colour {_numbers(colour)}"
    return text + (f" size {_numbers(sizes)}" if len(sizes) > 1 else "")


def _read_segments(lines: LineCollection, name: str | None = None, kind: str = "segment") -> str:
    ends = [
        "-".join(f"({_number(x)}, {_number(y)})" for x, y in segment)
        for segment in lines.get_segments()
    ]
    return f"{kind}s{_name(lines) if name is None else name}: " + " ".join(ends)


def _read_band(band: PolyCollection) -> str:
    corners = np.concatenate([path.vertices for path in band.get_paths()])  # type: ignore[arg-type]
    return f"band{_name(band)}: x {_numbers(corners[:, 0])} y {_numbers(corners[:, 1])}"


def _read_image(image: AxesImage) -> str:
    array = np.ma.filled(np.ma.asarray(image.get_array(), float), np.nan)
    rows = "".join(f"\n    {_numbers(row.ravel())}" for row in array)
    return f"image{_name(image)}: {' x '.join(map(str, array.shape))}{rows}"


def _read_text(text: Text) -> str:
    return f"text: {text.get_text()}" if text.get_text() else ""


def _read_legend(legend: Legend) -> str:
    return "legend: " + ", ".join(text.get_text() for text in legend.get_texts())


READERS: dict[type[Artist], Callable[[Any], str]] = {
    Line2D: _read_line,
    PathCollection: _read_points,
    LineCollection: _read_segments,
    PolyCollection: _read_band,
    AxesImage: _read_image,
    Text: _read_text,
    Legend: _read_legend,
}


def _read_artist(artist: Artist) -> str:
    for kind, reader in READERS.items():
        if isinstance(artist, kind):
            return reader(artist)
    raise TypeError(f"CheckedFigure can't read a {type(artist).__name__}: {artist}")


def _name(artist: Any) -> str:
    """The artist's label in quotes; nothing without one (matplotlib's own begin with ``_``)."""
    label = str(artist.get_label() or "")
    return "" if not label or label.startswith("_") else f" {label!r}"


def _numbers(values: Iterable[float]) -> str:
    return "[" + ", ".join(_number(value) for value in values) + "]"


def _number(value: float) -> str:
    """A number with at most 3 decimals, without trailing zeros and without a minus before 0."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


# --- the comparison -------------------------------------------------------------------------------


def side_by_side(results: Mapping[str, Any]) -> CheckedFigure:
    """Exact match and F1 of every method, each with its 95 % interval, in the results' order.

    If all methods share one retriever, a dotted line shows its recall@k: how often a passage that
    answers the question was retrieved.

    Args:
        results: ``results.json`` as :func:`ragbook.compare` makes it; scores in 0..1 are shown as
            percentages.

    Raises:
        InputError: no question has a known answer, so that there are no scores.
    """
    _check_scored(results)
    methods: Mapping[str, Any] = results["methods"]
    recalls = {entry["recall_at_k"] for entry in methods.values()} - {None}
    series = [
        ("exact match", "EM", {name: _interval(entry, "em") for name, entry in methods.items()}),
        ("F1", "F1", {name: _interval(entry, "f1") for name, entry in methods.items()}),
    ]
    recall = recalls.pop() if len(recalls) == 1 else None
    return _two_series(results, series, recall, "% of questions (95 % intervals)")


def own_and_shared(
    own: Mapping[str, Any], shared: Mapping[str, Any], width: float = 7.0
) -> CheckedFigure:
    """Exact match of every method with its 95 % interval, twice: trained by its own objective, and
    with the weights that all methods share. A dotted line shows recall@k of the shared retriever.

    Args:
        own, shared: ``results.json`` of the two comparisons, of the same questions and methods.
        width: of the picture, inches; 4.2 is readable on a phone.
    """
    series = [
        (label, head, {name: _interval(each["methods"][name], "em") for name in own["methods"]})
        for label, head, each in (
            ("own objective", "own", own),
            ("the same weights for all", "same", shared),
        )
    ]
    recalls = (entry["recall_at_k"] for entry in shared["methods"].values())
    recall = next((value for value in recalls if value is not None), None)
    xlabel = "exact match, % of questions (95 % intervals)"
    return _two_series(own, series, recall, xlabel, width)


def _check_scored(results: Mapping[str, Any]) -> None:
    if not scored_number(results):
        raise InputError(
            "No question of the comparison has a known answer, so there is no score to draw."
        )


def _title(results: Mapping[str, Any]) -> str:
    """The questions, how many of them have a score, and k."""
    questions, scored = results["questions"], scored_number(results)
    n = f"{questions['n']:,}"
    n = n if scored == questions["n"] else f"{scored:,} of {n}"
    return f"{questions['name']} {questions['split']}, n = {n}, k = {results['k']}"


def _interval(entry: Mapping[str, Any], metric: str) -> tuple[float, float, float]:
    """A method's score and its interval's ends, in 0..1."""
    return (entry[metric], *entry["ci95"][metric])


def _two_series(
    results: Mapping[str, Any],
    series: list[tuple[str, str, dict[str, tuple[float, float, float]]]],
    recall: float | None,
    xlabel: str,
    width: float = 7.0,
) -> CheckedFigure:
    """Two scores of every method, one above the other, and written at the side.

    Args:
        results: what the title says: questions and k.
        series: of each the label, the head of its column and the scores by method.
        recall: where the dotted line stands, if there is one.
        xlabel: what the scores are.
        width: of the picture, inches.
    """
    narrow = width < 5
    names, k = list(series[0][2]), results["k"]
    rows = np.arange(len(names), dtype=float)
    with matplotlib.rc_context(STYLE):
        height = 1.0 + 0.3 * narrow + 0.46 * len(names)
        figure = Figure(figsize=(width, height))
        # The columns' place depends on the axes' width, which the layout finds only roughly.
        figure.set_layout_engine("constrained", rect=(0, 0, 0.96 if narrow else 1, 1))
        axes = figure.subplots()
        axes.grid(axis="x")
        if recall is not None:
            axes.axvline(100 * recall, color=INK, linestyle=":", linewidth=1.2, label=f"recall@{k}")
        first, second = (1.13, 1.3) if narrow else (1.07, 1.17)  # right of the axes, in its widths
        looks = ((BLUE, "o", 5.5, first, -0.13), (VERMILLION, "D", 4.8, second, 0.13))
        for (label, head, scores), (colour, marker, size, column, shift) in zip(
            series, looks, strict=True
        ):
            score, low, high = 100 * np.array(list(scores.values()), float).reshape(-1, 3).T
            axes.errorbar(
                score,
                rows + shift,
                xerr=[np.maximum(score - low, 0), np.maximum(high - score, 0)],
                fmt=marker,
                color=colour,
                markersize=size,
                markerfacecolor=colour if colour == BLUE else "white",
                markeredgewidth=1.3,
                elinewidth=1.3,
                capsize=0,
                label=label,
            )
            beside = {"transform": axes.get_yaxis_transform(), "ha": "right", "color": colour}
            axes.text(column, -0.75, head, weight="bold", **beside)
            for row, value in zip(rows, score, strict=True):
                axes.text(column, row, cut_off(value / 100), va="center", **beside)
        labels = [row_name(name).replace(" ", "\n" if narrow else " ") for name in names]
        axes.set_yticks(rows, labels=labels)
        axes.set_ylim(len(names) - 0.5, -0.5)  # the first method on top
        axes.set_xlim(left=0)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(xlabel)
        figure.legend(loc="outside upper center", ncols=1 if narrow else 3)
        axes.set_title(_title(results))
    return CheckedFigure(figure)


_KINDS = {
    "exact": BLUE,
    "empty": INK,
    "cut": ORANGE,
    "long": YELLOW,
    "not-retrieved": FAINT,
    "same-passage": VERMILLION,
    "other-passage": SKY,
    "not-in-passages": PURPLE,
}
_DARK = (BLUE, INK, VERMILLION)  # white figures on these


def errors(results: Mapping[str, Any]) -> CheckedFigure:
    """What each method's answers are: one bar a method, in the results' order, divided into the
    kinds of :mod:`ragbook.evaluation.errors`. Parts of 4 % or more have their share written in.

    Args:
        results: ``results.json`` as :func:`ragbook.compare` makes it, with ``errors``.

    Raises:
        InputError: no question has a known answer.
    """
    _check_scored(results)
    methods: Mapping[str, Any] = results["methods"]
    scored = scored_number(results)
    rows = np.arange(len(methods), dtype=float)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.0, 1.3 + 0.4 * len(methods)), layout="constrained")
        axes = figure.subplots()
        left = np.zeros(len(methods))
        for kind, label in LABELS.items():
            share = np.array([m["errors"][kind] / scored for m in methods.values()])
            colour = _KINDS[kind]
            axes.barh(
                rows,
                100 * share,
                height=0.72,
                left=left,
                color=colour,
                edgecolor="white",
                linewidth=0.8,
                label=label,
            )
            for row, start, part in zip(rows, left, share, strict=True):
                if part >= 0.04:
                    axes.text(
                        start + 50 * part,
                        row,
                        cut_off(part),
                        ha="center",
                        va="center",
                        size=7.5,
                        color="white" if colour in _DARK else "black",
                    )
            left += 100 * share
        axes.set_yticks(rows, labels=[row_name(name) for name in methods])
        axes.set_ylim(len(methods) - 0.5, -0.5)  # the first method on top
        axes.set_xlim(0, 100)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("% of questions")
        figure.legend(loc="outside upper center", ncols=4)
        axes.set_title(_title(results))
    return CheckedFigure(figure)
