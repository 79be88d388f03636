"""Causes of early stops: a verdict is what the adjusted tests say, whichever way they go."""

import json
from dataclasses import replace

import pytest
from experiments import causes
from experiments.causes import DECODING, METHODS, WEIGHTS

from ragbook.evaluation.statistics import holm

NOTHING = {"difference": 0.0, "ci95": [-0.02, 0.02], "p": 1.0}


def compared(difference=0.0, ci95=(-0.02, 0.02), p=1.0):
    test = {"difference": difference, "ci95": list(ci95), "p": p}
    return {"against": {"way": "held", "cut": test, "em": NOTHING}}


def shares(mean, ci95):
    return {"cut": {"mean": mean, "ci95": list(ci95)}, "em": {"mean": mean, "ci95": list(ci95)}}


def alone(nested):
    """A copy in which no part is another part too."""
    return json.loads(json.dumps(nested))


@pytest.fixture
def stops():
    """In the form of the stored file, with no effect; trainings without tests, as they were."""
    ways = {way: compared() for way in DECODING.values()}
    trained = {
        name: shares(0.03, (0.01, 0.05)) for name in ("none", "among all words", "under the rule")
    }
    return alone(
        {
            "n": 300,
            **{weights: {name: ways for name in METHODS} for weights in WEIGHTS},
            "length penalties": {
                "n": 755,
                **{name: {"0.5": compared(), "1": compared()} for name in METHODS},
            },
            "objectives": {"n": 400, **{name: trained for name in METHODS}},
        }
    )


def said(stops, cause, method="rag-token"):
    return causes.in_words(
        causes.of_cause(causes.effects(stops), cause), method, "the share of cut answers"
    )


def test_p_values_are_adjusted_for_all_tests_of_the_table(stops):
    """Four changes with two kinds of weights and two penalties, for three methods; what cannot
    change is no test, and neither are the trainings, which have none."""
    raw = [0.001 * (i + 1) for i in range(26)]
    given = iter(raw)
    for cause, way in DECODING.items():
        for weights in WEIGHTS:
            for name in METHODS:
                if (cause, name) not in causes.UNCHANGED:
                    stops[weights][name][way] = compared(p=next(given))
    for way in ("0.5", "1"):
        for name in METHODS:
            stops["length penalties"][name][way] = compared(p=next(given))
    assert next(given, None) is None
    every = causes.effects(stops)
    assert [e.p for e in every if e.p is not None] == holm(raw)
    assert len(every) == 32


def test_a_p_value_that_holm_raises_above_the_level_is_not_significant(stops):
    way = DECODING["the passages"]
    stops["same weights"]["rag-token"][way] = compared(0.05, (0.01, 0.09), 0.004)
    every = causes.effects(stops)
    assert "none of the 26 paired tests is significant" in causes.summary(every)
    assert causes.whose(every) == "No method's share is shown to depend on any of the causes."
    assert "*" not in causes.table(every).to_string()
    stops["same weights"]["rag-token"][way] = compared(0.05, (0.01, 0.09), 0.0001)
    every = causes.effects(stops)
    assert causes.summary(every) == (
        "1 of the 26 paired tests is significant after Holm's correction: the passages "
        "(higher: RAG-Token)"
    )
    assert causes.whose(every).startswith("Only RAG-Token's share is shown to depend")
    rows = causes.table(every)
    assert rows.loc[("the passages", "same weights"), "rag-token"] == "+5.0 [+1.0, +9.0] *"
    assert rows.loc[("the passages", "same weights"), "verdict"] == "higher: RAG-Token"
    assert rows.loc[("the rule", "same weights"), "verdict"] == "not significant"


def test_a_test_on_one_metric_says_nothing_of_the_other(stops):
    stops["own training"]["fid"]["free"]["against"]["em"] = {
        "difference": -0.1,
        "ci95": [-0.13, -0.07],
        "p": 0.0001,
    }
    assert "none of" in causes.summary(causes.effects(stops))
    assert causes.summary(causes.effects(stops, "em")).endswith(": the rule (lower: FiD)")


def test_opposite_directions_are_said_and_which_of_them_is_significant(stops):
    way = DECODING["the comparison"]
    stops["same weights"]["rag-token"][way] = compared(-0.0167, (-0.04, 0.0066), 0.2)
    stops["own training"]["rag-token"][way] = compared(0.0333, (0.013, 0.06), 0.0001)
    assert said(stops, "the comparison") == (
        "The share of cut answers falls by 1.6 points [-0.6, 4.0] with the same weights, but "
        "rises by 3.3 points [1.3, 6.0] with its own training; only the difference with its own "
        "training is significant."
    )


def test_one_direction_is_said_once(stops):
    for way, points in (("0.5", -0.02), ("1", -0.03)):
        stops["length penalties"]["rag-token"][way] = compared(points, (-0.04, -0.01), 0.0001)
    assert said(stops, "the length") == (
        "The share of cut answers falls by 2.0 points [1.0, 4.0] with a penalty of 0.5 and by 3.0 "
        "points [1.0, 4.0] with a penalty of 1; both differences are significant."
    )
    assert said(stops, "the rule").endswith("neither difference is significant.")


def test_without_tests_intervals_that_overlap_decide_nothing(stops):
    every = causes.effects(stops)
    training = causes.of_cause(every, "the training")
    assert causes.verdict(training) == "not tested"
    assert said(stops, "the training").endswith("; this was not tested.")
    stops["objectives"]["fid"]["under the rule"] = shares(0.005, (0.0, 0.009))
    apart = causes.of_cause(causes.effects(stops), "the training")
    assert causes.verdict(apart) == "lower: FiD (intervals apart)"
    assert "falls by 2.5 points after training under the rule" in said(stops, "the training", "fid")
    assert "significant" not in said(stops, "the training", "fid")


def test_trainings_with_tests_are_counted_with_the_others(stops):
    for name in METHODS:
        for training in ("among all words", "under the rule"):
            stops["objectives"][name][training] |= compared(-0.04, (-0.06, -0.02), 0.0001)
    every = causes.effects(stops)
    assert causes.summary(every).startswith("6 of the 32 paired tests are significant")
    assert causes.whose(every).startswith("The shares of RAG-Sequence, RAG-Token and FiD are")
    assert causes.verdict(causes.of_cause(every, "the training")) == (
        "lower: RAG-Sequence, RAG-Token and FiD"
    )


def test_a_verdict_names_both_directions(stops):
    for name, points in (("rag-token", 0.05), ("fid", -0.05)):
        ci95 = sorted((points - 0.02, points + 0.02))
        stops["same weights"][name]["free"] = compared(points, ci95, 0.0001)
    rule = causes.of_cause(causes.effects(stops), "the rule")
    assert causes.verdict(rule) == "higher: RAG-Token; lower: FiD"


def test_other_methods_are_named_if_a_test_of_theirs_is_significant(stops):
    rule = causes.of_cause(causes.effects(stops), "the rule")
    assert causes.others(rule, "rag-token") == ""
    rule = [replace(e, difference=0.02, p=0.01) if e.method == "fid" else e for e in rule]
    assert causes.others(rule, "rag-token") == (
        "Of the other methods' differences, FiD's with the same weights (+2.0 points) and FiD's "
        "with its own training (+2.0 points) are significant."
    )


def test_the_room_is_that_of_one_methods_widest_intervals(stops):
    stops["own training"]["rag-token"]["free"] = compared(0.05, (0.01, 0.0999))
    stops["own training"]["fid"]["free"] = compared(0.05, (-0.2, 0.3))
    room = causes.room(causes.effects(stops), "rag-token")
    assert room == "changes from -2.0 to +9.9 points"


def test_two_methods_are_counted_on_the_same_questions():
    cut = {"rag-sequence": [1.0] + [0.0] * 99, "rag-token": [1.0] * 21 + [0.0] * 79}
    text = causes.cut_short(cut)
    assert text.startswith("RAG-Token cuts 21 of 100 answers short and RAG-Sequence 1; ")
    assert "the difference of 20.0 points [" in text
    assert text.endswith("] is significant")
    cut["rag-token"] = [0.0, 1.0, 1.0] + [0.0] * 97
    assert causes.cut_short(cut).endswith("] could be chance")
