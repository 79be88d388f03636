"""What the modules that measure share: batches, intervals in words, stored sections."""

import json
from typing import Any

import pytest
from experiments.report import (
    answered,
    in_points,
    percent,
    points,
    relative,
    write_sections,
)
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Question
from ragbook.evaluation.statistics import mean_ci
from ragbook.methods.base import Answer

QUESTIONS = [Question(f"Question {number}?", ("yes",), "a") for number in range(5)]


class Notes:
    """Answers with the question's own words, and writes down who was asked what."""

    def __init__(self, name, asked):
        self.name, self.asked = name, asked

    def answer(self, questions, k=5):
        self.asked.append((self.name, len(questions), k))
        return [Answer(question.text, question.text, 0.0, (), 0.0) for question in questions]


def test_methods_take_turns_and_no_question_is_left_out():
    asked = []
    methods: dict[str, Any] = {name: Notes(name, asked) for name in ("a", "b")}
    answers = answered(methods, QUESTIONS, 3, batch=2)
    assert asked == [(name, n, 3) for n in (2, 2, 1) for name in ("a", "b")]
    for own in answers.values():
        assert [answer.text for answer in own] == [question.text for question in QUESTIONS]


def test_shares_are_cut_off_and_never_rounded_up():
    assert percent({"mean": 0.51999, "ci95": [0.49999, 0.5425]}) == "51.9 [49.9, 54.2]"
    # 0.29 is 0.28999... as a float: what a figure is, not how it is stored, is cut off.
    assert percent({"mean": 0.29, "ci95": [0.0, 1.0]}) == "29.0 [0.0, 100.0]"


def test_a_difference_is_the_same_in_either_order():
    assert points({"difference": -0.0031, "ci95": [-0.0119, 0.0059]}) == "-0.3 [-1.1, +0.5]"
    assert points({"difference": 0.0031, "ci95": [-0.0059, 0.0119]}) == "+0.3 [-0.5, +1.1]"
    assert in_points(-0.0009, (-0.0119, 0.0)) == "0.0 points [-1.1, 0.0]"


def test_relative_differences_are_cut_off_towards_zero():
    assert relative(-0.24506, (-0.27132, 0.00058)) == "-24.5 [-27.1, +0.0]"
    assert relative(0.02529, (0.013, 0.0359)) == "+2.5 [+1.3, +3.5]"


@given(st.integers(0, 1000))
def test_whole_tenths_stay_as_they_are(tenths):
    share = tenths / 1000
    assert percent({"mean": share, "ci95": [share, share]}).split()[0] == f"{tenths / 10:.1f}"


def test_the_mean_lies_in_its_interval():
    value = mean_ci([0.0, 1.0, 1.0, 0.0, 1.0])
    low, high = value["ci95"]
    assert low <= value["mean"] == 0.6 <= high


def test_stored_sections_are_kept_when_a_later_one_fails(tmp_path):
    out = tmp_path / "figures.json"
    out.write_text('{"first": 1}')

    def fails():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_sections(out, {"first": fails, "second": lambda: 2, "third": fails})
    assert json.loads(out.read_text()) == {"first": 1, "second": 2}
