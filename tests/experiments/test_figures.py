"""Figures with intervals: what is drawn, read back from the artists, is what was given."""

import re

import numpy as np
import pytest
from experiments import figures

GIVEN = {"mean": 0.25, "ci95": (0.2, 0.4)}
MORE = {"mean": 0.5, "ci95": (0.5, 0.625)}


def segments(text: str, name: str) -> list[list[float]]:
    """The ends x, y, x, y of a series' intervals."""
    (line,) = re.findall(rf"intervals? ?(?:'{name}'|{name}): (.*)", text)
    ends = re.findall(r"\(([-\d.]+), ([-\d.]+)\)-\(([-\d.]+), ([-\d.]+)\)", line)
    return [[float(number) for number in each] for each in ends]


def test_grouped_shows_every_interval_in_its_row():
    text = repr(figures.grouped({"first": {"a": GIVEN, "b": MORE}, "second": {"b": GIVEN}}, "EM"))
    ((low, y, high, same),) = segments(text, "a")
    assert (low, high) == (20, 40)
    assert y == same
    assert -0.5 < y < 0.5
    (first, second) = segments(text, "b")
    assert (first[0], first[2], second[0], second[2]) == (50, 62.5, 20, 40)
    assert 0.5 < second[1] < 1.5
    assert "{0: first, 1: second}" in text


def test_a_swapped_name_changes_the_text():
    values = np.array([[0.0, 1.0], [1.0, 0.0]])
    one = repr(figures.heat_map(values, ["a", "b"], ["x", "y"], "share"))
    other = repr(figures.heat_map(values, ["b", "a"], ["x", "y"], "share"))
    assert "{0: x, 1: y}" in one
    assert one != other
    assert "{0: a, 1: b}" in repr(figures.bars({"a": 1.0, "b": 2.0}, "n"))


@pytest.mark.parametrize("log", [False, True])
def test_curves_pass_through_the_means(log):
    text = repr(figures.curves({"a": {1: GIVEN, 10: MORE}, "b": {10: GIVEN}}, "k", "EM", log))
    assert re.search(r"line 'a': x \[.*\] y \[25, 50\]", text)
    near, far = segments(text, "a")
    assert near[1::2] == [20, 40]
    assert far[1::2] == [50, 62.5]
    assert abs(near[0] - 1) < 0.2
    assert abs(far[0] - 10) < 0.2


def test_the_front_is_a_line_through_its_points():
    points = {"a": (1.0, GIVEN), "b": (3.0, GIVEN), "c": (2.0, MORE)}
    text = repr(figures.trade_off(points, ["a", "c"], "seconds"))
    assert "line 'beaten by none': x [1, 2] y [25, 50]" in text
    assert segments(text, "b") == [[3, 20, 3, 40]]


def test_calibration_has_a_panel_a_method():
    found = {
        name: {"groups": [{"probability": 0.125, "n": 3, **GIVEN}], "error": 0.1} for name in "abcd"
    }
    text = repr(figures.calibration(found))
    assert text.count("x [0.125] y [25]") == 4
    assert text.count("line: x [0, 1] y [0, 100]") == 4
    assert "d, error 0.100" in text


def test_no_series_is_left_out_and_none_looks_like_another():
    names = [f"series {number}" for number in range(8)]
    figure = figures.lines({name: {1: 1.0, 2: 2.0} for name in names}, "x", "y")
    (axes,) = figure.figure.axes
    drawn = {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.lines}
    assert set(drawn) == set(names)
    assert len(set(drawn.values())) == 8


def test_a_method_looks_the_same_in_every_company():
    def look(*names):
        (axes,) = figures.lines({name: {1: 1.0} for name in names}, "x", "y").figure.axes
        lines = {line.get_label(): (line.get_color(), line.get_marker()) for line in axes.lines}
        assert len(set(lines.values())) == len(names)
        return lines["fid"]

    alone = look("fid")
    assert look("realm", "recall", "fid") == alone
    assert look("fid", "rag-token", "closed-book", "other") == alone


def test_places_are_named_in_their_order():
    stages = [("the input", "one prompt", "in-context"), ("the cache", "two texts", "fid")]
    said = str(figures.places(stages))
    at = [said.index(f"text: {word}") for word in ("in-context", "the input", "fid", "the cache")]
    assert at == sorted(at)
    assert "line 'to the cache'" in said
    assert "line 'to the input'" not in said


def test_lines_have_the_scales_that_are_asked_for():
    for log, log_y in ((False, False), (True, False), (True, True)):
        figure = figures.lines({"a": {1: 1.0, 10: 1000.0}}, "x", "y", log, log_y)
        (axes,) = figure.figure.axes
        assert axes.get_xscale() == ("log" if log else "linear")
        assert axes.get_yscale() == ("log" if log_y else "linear")


def test_a_mask_shows_the_encoders_tokens_above_and_the_answers_below():
    blocks = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])
    text = repr(figures.attention_mask(blocks, np.ones((1, 3)), ["a", "b", "c"], ["y"]))
    encoder, decoder = text.split("axes | ")[1:]
    assert encoder.startswith("encoder")
    assert "y: {0: a, 1: b, 2: c}" in encoder
    assert "[1, 1, 0]\n    [1, 1, 0]\n    [0, 0, 1]" in encoder
    assert decoder.startswith("decoder")
    assert "x: {0: a, 1: b, 2: c}" in decoder
    assert "y: {0: y}" in decoder
    assert "image: 1 x 3\n    [1, 1, 1]" in decoder
