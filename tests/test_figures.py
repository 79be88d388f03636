"""The comparison's figures: what is drawn, read back from the artists, is what was given."""

import re
from typing import Any

import numpy as np

from ragbook import figures
from ragbook.evaluation.errors import LABELS, NAMES

COUNTS = {"rag-token": (96, 0, 10, 4, 30, 30, 20, 10), "closed-book": (2, 7, 0, 0, 0, 0, 0, 191)}
RESULTS = {
    "questions": {"name": "numbers", "split": "dev", "n": 200},
    "k": 5,
    "methods": {m: {"errors": dict(zip(NAMES, c, strict=True))} for m, c in COUNTS.items()},
}


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(", ")]


def test_bars_of_errors_fill_the_whole_and_stand_one_after_the_other():
    text = repr(figures.errors(RESULTS))
    drawn = {
        name: (numbers(length), numbers(start) if start else [0.0, 0.0])
        for name, length, start in re.findall(
            r"bars '(.*?)': at \[0, 1\] length \[(.*?)\](?: from \[(.*?)\])?", text
        )
    }
    assert list(drawn) == list(LABELS.values())
    lengths = np.array([drawn[label][0] for label in LABELS.values()])
    np.testing.assert_allclose(lengths.T, np.array(list(COUNTS.values())) / 2)
    starts = np.array([drawn[label][1] for label in LABELS.values()])
    np.testing.assert_allclose(starts, np.cumsum(lengths, axis=0) - lengths)
    assert "legend: " + ", ".join(LABELS.values()) in text
    assert "{0: RAG-Token, 1: closed-book}" in text
    # Shares of 4 % and more are written in, kind after kind.
    shown = ["48.0", "5.0", "15.0", "15.0", "10.0", "5.0", "95.5"]
    assert re.findall(r"text: ([\d.]+)", text) == shown


def test_no_two_kinds_of_error_look_the_same(tmp_path):
    figure = figures.errors(RESULTS)
    axes: Any
    (axes,) = figure.figure.axes
    colours = [container.patches[0].get_facecolor() for container in axes.containers]
    assert len(set(colours)) == 8
    first, second = (figure.save(tmp_path / f"{name}.png").read_bytes() for name in "ab")
    assert first == second
