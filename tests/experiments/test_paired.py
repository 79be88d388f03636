"""Differences in pairs as a figure: what is drawn is what was given; hollow is not significant."""

import re

from experiments import paired

FIRST = {
    "a - b": {"difference": 0.02, "ci95": (0.01, 0.04), "p": 0.001},
    "a - c": {"difference": -0.01, "ci95": (-0.03, 0.02), "p": 0.4},
}
SECOND = {
    "a - b": {"difference": 0.005, "ci95": (-0.01, 0.03), "p": 0.05},
    "a - c": {"difference": -0.05, "ci95": (-0.08, -0.01), "p": 0.0499},
}


def line(text, name):
    """x and y of a series."""
    (found,) = re.findall(rf"line '{name}': x \[([^]]*)\] y \[([^]]*)\]", text)
    return [[float(one) for one in part.split(",")] for part in found]


def test_every_difference_is_in_its_row_and_marked_by_its_p():
    figure = paired.differences({"one": FIRST, "two": SECOND}, "points")
    text = repr(figure)
    for name, x, row in (
        ("one", 2, 0),
        ("one, not significant", -1, 1),
        ("two", -5, 1),  # its p is below 0.05
        ("two, not significant", 0.5, 0),  # and this one is not
    ):
        (found,), (y,) = line(text, name)
        assert found == x
        assert round(y) == row
    assert "intervals 'one': (1, -0.2)-(4, -0.2)" in text
    assert "{0: a - b, 1: a - c}" in text


def test_a_hollow_mark_is_white():
    figure = paired.differences({"one": FIRST}, "points").figure
    faces = {one.get_label(): one[0].get_markerfacecolor() for one in figure.axes[0].containers}
    assert faces["one, not significant"] == "white" != faces["one"]
