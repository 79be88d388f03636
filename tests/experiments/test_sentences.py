"""Differences and curves in words: who is ahead, and that nothing is said without an interval."""

import re
from itertools import product

import pytest
from experiments.sentences import (
    between,
    compared,
    compared_with_each,
    course,
    perplexity_changed,
    ranked,
    who,
    widest_errors,
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
    assert said.endswith("] above two, which could be chance")


def test_a_p_value_that_is_not_below_alpha_puts_nobody_ahead_either():
    test = {"difference": 0.03, "ci95": (0.003, 0.068), "p": 0.0685}
    assert compared(test, "one", "two") == (
        "one is 3.0 points [0.3, 6.8] above two, which could be chance (p = 0.068)"
    )
    assert compared({**test, "p": 0.04}, "one", "two") == (
        "one is ahead of two by 3.0 points [0.3, 6.8]"
    )


def test_a_difference_below_zero_is_turned_round():
    test = {"difference": -0.01, "ci95": (-0.03, 0.005)}
    assert compared(test, "one", "two") == (
        "two is 1.0 points [-0.5, 3.0] above one, which could be chance"
    )
    same = {"difference": 0.0, "ci95": (-0.01, 0.01)}
    assert compared(same, "one", "two").startswith("one and two have the same mean")


def paired(difference, p):
    return {"difference": difference, "ci95": (difference - 0.01, difference + 0.01), "p": p}


def test_one_is_compared_with_several_in_one_sentence():
    """0.02 is significant alone and not after Holm's correction for three tests."""
    tests = {"b": paired(0.05, 0.001), "c": paired(0.03, 0.001), "d": paired(-0.04, 0.001)}
    assert compared_with_each("a", tests) == (
        "a is ahead of b by 5.0 points [4.0, 6.0] and of c by 3.0 points [2.0, 4.0]; it is behind "
        "d by 4.0 points [3.0, 5.0]"
    )
    tests = {"b": paired(0.02, 0.02), "c": paired(0.02, 0.04), "d": paired(-0.02, 0.03)}
    assert compared_with_each("a", tests) == (
        "the differences of a from b (2.0 points [1.0, 3.0]), c (2.0 points [1.0, 3.0]) and d "
        "(2.0 points [1.0, 3.0]) could be chance"
    )


@pytest.mark.parametrize("n", range(1, 7))
def test_no_clause_is_repeated_whatever_the_tests_say(n):
    for kinds in product(("ahead", "behind", "open"), repeat=n):
        tests = {
            f"m{i}": paired(-0.05 if kind == "behind" else 0.05, 0.9 if kind == "open" else 0.0001)
            for i, kind in enumerate(kinds)
        }
        said = compared_with_each("a", tests)
        for words in ("is ahead", "is behind", "could be chance"):
            assert said.count(words) <= 1
        assert said.count("points [") == n
        assert all(len(re.findall(rf"\b{name}\b", said)) == 1 for name in tests)
        assert len(re.findall(r"\ba\b", said)) == 1
        assert ("could be chance" in said) == ("open" in kinds)
        assert ("difference " in said) == (kinds.count("open") == 1)


def test_a_verb_agrees_with_those_who_have():
    assert who([], 5, "has", "have") == "none has"
    assert who(["dot"], 5, "has", "have") == "only *dot* has"
    assert who(["dot", "l2"], 5, "has", "have") == "*dot* and *l2* have"
    assert who(list("abcde"), 5, "has", "have") == "all five have"
    assert who(["a", "b"], 2, "has", "have") == "both have"
    assert who(["a"], 1, "has", "have") == "only *a* has"
    assert who(list("abcdefghijkl"), 12, "has", "have") == "all 12 have"


@pytest.mark.parametrize(
    ("means", "said"),
    [
        (
            (0.1, 0.3, 0.2),
            "it goes from 10.0 % with one passage up to 30.0 % with 5, and is at 20.0 % with 10",
        ),
        (
            (0.1, 0.2, 0.3),
            "it goes from 10.0 % with one passage to its highest value, 30.0 %, with 10",
        ),
        (
            (0.3, 0.3, 0.2),  # of equal ones the fewest passages
            "it is highest with one passage, at 30.0 %, and is at 20.0 % with 10 passages",
        ),
    ],
)
def test_the_course_of_a_curve(means, said):
    by_k = {"10": {"mean": means[2]}, "1": {"mean": means[0]}, "5": {"mean": means[1]}}
    assert course("it", by_k) == said


def test_the_course_of_a_single_point():
    assert course("it", {"5": {"mean": 0.1}}) == "it is at 10.0 % with 5 passages"


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
def test_a_perplexity_whose_interval_contains_zero_could_be_chance(ci95):
    said = perplexity_changed("It", -0.0022, ci95)
    assert said.startswith("It changes the perplexity by -0.2 [")
    assert said.endswith("%, which could be chance")


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
    assert widest_errors(results, ("realm", "fid", "rag-token")) == {
        "kind": "other passage",
        "lowest": "2.5 % (REALM)",
        "highest": "35.0 % (FiD)",
        "next": "cut, 10.0 points",
    }
