"""Differences and curves in words: who is ahead, and that nothing is said without an interval."""

import pytest
from experiments.sentences import (
    between,
    compared,
    course,
    perplexity_changed,
    ranked,
    widest_error,
)


def test_the_better_one_comes_first_with_positive_points():
    ahead = {"difference": 0.0549, "ci95": (0.01, 0.1)}
    assert compared(ahead, "one", "two") == "one is ahead of two by 5.4 points [1.0, 10.0]"
    behind = {"difference": -0.0549, "ci95": (-0.1, -0.01)}
    assert compared(behind, "one", "two") == "two is ahead of one by 5.4 points [1.0, 10.0]"


@pytest.mark.parametrize("ci95", [(-0.01, 0.03), (0.0, 0.03), (-0.01, 0.0)])
def test_an_interval_with_zero_puts_nobody_ahead(ci95):
    said = compared({"difference": 0.01, "ci95": ci95}, "one", "two")
    assert said.startswith("one is 1.0 points [")
    assert said.endswith("] above two, an interval that includes zero")


def test_a_difference_below_zero_is_turned_round():
    test = {"difference": -0.01, "ci95": (-0.03, 0.005)}
    assert compared(test, "one", "two") == (
        "two is 1.0 points [-0.5, 3.0] above one, an interval that includes zero"
    )
    same = {"difference": 0.0, "ci95": (-0.01, 0.01)}
    assert compared(same, "one", "two").startswith("one and two have the same mean")


@pytest.mark.parametrize(
    ("means", "said"),
    [
        (
            (0.1, 0.3, 0.2),
            "it reaches 10.0 % with one passage, its highest value, 30.0 %, with 5, and 20.0 % "
            "with 10 passages",
        ),
        (
            (0.1, 0.2, 0.3),
            "it reaches 10.0 % with one passage and its highest value, 30.0 %, with 10 passages",
        ),
        (
            (0.3, 0.3, 0.2),  # of equal ones the fewest passages
            "it reaches 30.0 % with one passage, its highest value, and 20.0 % with 10 passages",
        ),
    ],
)
def test_the_course_of_a_curve(means, said):
    by_k = {"10": {"mean": means[2]}, "1": {"mean": means[0]}, "5": {"mean": means[1]}}
    assert course("it", by_k) == said


def test_shares_in_order_and_their_range():
    assert ranked({"a": 0.1, "b": 0.3, "c": 0.2}) == "b 30.0 %, c 20.0 % and a 10.0 %"
    assert between([0.2, 0.1, 0.15]) == "10.0 to 20.0 %"
    assert between([0.1001, 0.1]) == "10.0 %"


def test_a_perplexity_is_lowered_or_raised_by_what_was_measured():
    assert perplexity_changed("It", -0.2459, (-0.2719, -0.2174)) == (
        "It lowers the perplexity by 24.5 % [21.7, 27.1]"
    )
    assert perplexity_changed("It", 0.0259, (0.0138, 0.0354), further=True) == (
        "It raises the perplexity by a further 2.5 % [1.3, 3.5]"
    )


@pytest.mark.parametrize("ci95", [(-0.005, 0.0), (-0.005, 0.0005), (0.0, 0.01)])
def test_a_perplexity_whose_interval_contains_zero_is_neither(ci95):
    said = perplexity_changed("It", -0.0022, ci95)
    assert said.startswith("It changes the perplexity by -0.2 [")
    assert said.endswith("an interval that contains zero")


def test_the_error_that_separates_methods_most():
    def method(**errors):
        kinds = ("exact", "empty", "cut", "long", "not-retrieved", "same-passage", "other-passage",
                 "not-in-passages")  # fmt: skip
        return {"errors": {kind: errors.get(kind.replace("-", "_"), 0) for kind in kinds}}

    results = {
        "questions": {"n": 200},
        "methods": {
            "realm": method(exact=180, other_passage=5, cut=15),
            "fid": method(exact=100, other_passage=70, cut=30),
            "rag-token": method(other_passage=40, cut=10),
            "knn-lm": method(empty=200),  # not named below
        },
    }
    assert widest_error(results, ("realm", "fid", "rag-token")) == (
        "the kind of error whose share differs most is *other passage*, from 2.5 % (REALM) to "
        "35.0 % (FiD); the next, *cut*, spans 10.0 points"
    )
