"""Intervals and paired tests: against scipy, against enumeration, and on simulated data."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.evaluation import bootstrap_ci, holm, paired_test
from ragbook.evaluation.statistics import (
    adjusted,
    bootstrap_intervals,
    cut_off,
    over_seeds,
    paired_tests,
)


def test_the_interval_is_that_of_the_binomial():
    """The resampled count of right answers among 400, 30% of them right, is binomial."""
    from scipy.stats import binom

    low, high = bootstrap_ci([1] * 120 + [0] * 280)
    assert low * 400 == pytest.approx(binom.ppf(0.025, 400, 0.3), abs=1.01)
    assert high * 400 == pytest.approx(binom.ppf(0.975, 400, 0.3), abs=1.01)


def test_the_interval_agrees_with_scipy():
    from scipy.stats import bootstrap

    values = np.random.default_rng(1).beta(0.5, 0.5, 300)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=2).confidence_interval
    assert bootstrap_ci(values) == pytest.approx(tuple(theirs), abs=0.002)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.random((200, 500)) < 0.4  # 500 experiments of 200 questions
    low, high = bootstrap_intervals(samples.astype(float), resamples=1000).T
    assert np.mean((low <= 0.4) & (high >= 0.4)) == pytest.approx(0.95, abs=0.025)


def test_the_interval_is_seeded():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_ci(values) == bootstrap_ci(values, seed=0)
    assert bootstrap_ci(values) != bootstrap_ci(values, seed=1)


def test_chunks_of_draws_are_no_shorter_a_bootstrap(monkeypatch):
    """Draws come in chunks to bound memory: many small chunks give the same kind of interval, and
    every resample is filled."""
    from ragbook.evaluation import statistics

    values = np.random.default_rng(0).random(100)
    whole = bootstrap_ci(values)
    monkeypatch.setattr(statistics, "_CHUNK", 300)  # 3 resamples at a time; 10,000 is no multiple
    assert bootstrap_ci(values) == pytest.approx(whole, abs=0.003)
    assert paired_test(values, 1 - values).p == pytest.approx(
        paired_test(values, 1 - values).p, abs=0.02
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 5))
def test_columns_are_resampled_together(values, seed):
    column = np.array(values)
    table = np.stack([column, column, 1 - column], axis=1)
    first, second, mirrored = bootstrap_intervals(table, 200, seed)
    assert tuple(first) == tuple(second) == pytest.approx(bootstrap_ci(values, 200, seed))
    assert mirrored == pytest.approx(1 - first[::-1], abs=1e-9)
    assert min(values) - 1e-9 <= first[0] <= first[1] <= max(values) + 1e-9


def test_a_constant_has_an_interval_without_width():
    assert bootstrap_ci([1.0] * 7) == (1.0, 1.0)
    assert bootstrap_ci([0.25]) == (0.25, 0.25)


def exact_p(differences: np.ndarray) -> float:
    """The permutation test's p-value over all flips of signs instead of random ones."""
    sums = [abs(np.dot(signs, differences)) for signs in product((-1, 1), repeat=len(differences))]
    return float(np.mean(np.array(sums) >= abs(differences.sum()) - 1e-9))


@pytest.mark.parametrize("seed", range(4))
def test_p_agrees_with_the_enumeration_of_all_flips(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random(12) + 0.1 * seed, rng.random(12)
    assert paired_test(a, b).p == pytest.approx(exact_p(a - b), abs=0.02)


def test_the_paired_test_agrees_with_scipy():
    from scipy.stats import bootstrap, permutation_test

    rng = np.random.default_rng(5)
    a = (rng.random(200) < 0.5).astype(float)
    b = np.where(rng.random(200) < 0.8, a, rng.random(200) < 0.4)

    def mean_difference(x, y, axis):
        return np.mean(x - y, axis=axis)

    p = permutation_test(
        (a, b), mean_difference, permutation_type="samples", n_resamples=10_000, rng=1
    ).pvalue
    interval = bootstrap((a - b,), np.mean, method="percentile", rng=1).confidence_interval
    test = paired_test(a, b)
    assert test.difference == pytest.approx(a.mean() - b.mean())
    assert test.p == pytest.approx(p, abs=0.02)
    assert test.ci95 == pytest.approx(tuple(interval), abs=0.011)  # two steps of 1/200


def test_the_difference_turns_round_with_the_methods():
    rng = np.random.default_rng(0)
    a, b = rng.random(40), rng.random(40)
    there, back = paired_test(a, b), paired_test(b, a)
    assert back.difference == pytest.approx(-there.difference)
    assert back.ci95 == pytest.approx((-there.ci95[1], -there.ci95[0]))
    assert back.p == there.p


def test_p_is_one_without_a_difference_and_never_zero():
    same = np.random.default_rng(0).random(30)
    assert paired_test(same, same).p == 1.0
    assert paired_test(same, same).ci95 == (0.0, 0.0)
    assert paired_test(np.ones(100), np.zeros(100)).p == pytest.approx(1 / 10_001)
    assert paired_test([1.0], [0.0]).p == 1.0  # one question proves nothing


def test_the_paired_test_rejects_as_often_as_it_says():
    """1000 experiments in which two methods of one strength answer 60 questions."""
    rng = np.random.default_rng(0)
    hardness = rng.random((60, 1000))
    scores = rng.beta(2 * hardness + 0.1, 2 * (1 - hardness) + 0.1, (2, 60, 1000))
    p = np.array([test.p for test in paired_tests(scores[0] - scores[1], resamples=999)])
    for level in (0.05, 0.25, 0.5):
        deviation = (level * (1 - level) / 1000) ** 0.5
        assert np.mean(p <= level) == pytest.approx(level, abs=4 * deviation)
    # Right or wrong is coarser: many samples tie, and the test rejects less often, never more.
    right = (rng.random((2, 60, 1000)) < hardness).astype(float)
    p = np.array([test.p for test in paired_tests(right[0] - right[1], resamples=999)])
    assert 0.01 < np.mean(p <= 0.05) < 0.06


def test_the_paired_test_has_power_where_methods_differ():
    rng = np.random.default_rng(0)
    better = (rng.random((200, 100)) < 0.65).astype(float)
    worse = (rng.random((200, 100)) < 0.4).astype(float)
    p = np.array([test.p for test in paired_tests(better - worse, resamples=999)])
    assert np.mean(p < 0.05) > 0.95


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [float("inf")]])
def test_values_that_have_no_mean_are_refused(values):
    with pytest.raises(ValueError, match="finite"):
        bootstrap_ci(values)
    with pytest.raises(ValueError, match="finite"):
        paired_test(values, np.zeros(len(values)))


def test_pairs_must_match():
    with pytest.raises(ValueError, match="shape"):
        paired_test([1, 0], [1])


def test_holm():
    # By hand: sorted .01 .03 .04 times 3 2 1 is .03 .06 .04, made non-decreasing .03 .06 .06.
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_again_by_its_definition(p_values):
    adjusted = holm(p_values)
    m = len(p_values)
    for i, p in enumerate(p_values):
        below = [q for q in p_values if q <= p]
        expected = max((min(1.0, (m - r) * q) for r, q in enumerate(sorted(below))), default=0)
        assert adjusted[i] >= p
        assert adjusted[i] <= expected or adjusted[i] == pytest.approx(expected)


def test_tests_are_adjusted_for_all_pairs_of_their_own_metric():
    paired = [
        {"a": "x", "b": "y", "metric": "em", "p": 0.01},
        {"a": "x", "b": "y", "metric": "f1", "p": 0.5},
        {"a": "z", "b": "x", "metric": "em", "p": 0.04},
        {"a": "y", "b": "z", "metric": "em", "p": 0.03},
    ]
    found = adjusted(paired, "em")
    assert found == pytest.approx(
        {frozenset("xy"): 0.03, frozenset("yz"): 0.06, frozenset("xz"): 0.06}
    )
    assert adjusted(paired, "f1") == {frozenset("xy"): 0.5}
    assert adjusted(paired, "contains") == {}


def test_an_interval_over_seeds_and_questions_covers_both():
    """With a hundred made-up studies whose truth is known: seeds and questions have effects of
    their own. The interval that resamples the questions alone misses the truth far too often."""
    rng = np.random.default_rng(0)
    hits = alone = 0
    for _ in range(100):
        seeds, questions = rng.normal(0, 1, (8, 1)), rng.normal(0, 1, (1, 40))
        values = 0.5 + seeds + questions + rng.normal(0, 0.1, (8, 40))
        low, high = over_seeds(values, 400, seed=1).ci95
        hits += low <= 0.5 <= high
        low, high = bootstrap_ci(values.mean(0), 400, seed=1)
        alone += low <= 0.5 <= high
    assert hits >= 85
    assert alone < 70


def test_over_seeds_says_what_is_there():
    values = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    found = over_seeds(values, 2000)
    assert found.difference == pytest.approx(5 / 6)
    assert found.ci95 == over_seeds(values, 2000).ci95
    assert 0 < found.p < 0.05  # no resampled mean is negative, and few are 0
    assert over_seeds(values - 5 / 6, 2000).p > 0.5
    assert over_seeds(np.zeros((2, 3)), 50).p == 1
    one = over_seeds(np.array([[0.3, 0.5, 0.1, 0.7]]), 20_000)
    assert one.ci95 == pytest.approx(bootstrap_ci([0.3, 0.5, 0.1, 0.7], 20_000), abs=0.02)
    with pytest.raises(ValueError, match="at least one question"):
        over_seeds(np.empty((2, 0)))


@given(st.floats(-1, 1))
def test_a_printed_difference_is_the_same_in_either_order_and_no_greater_than_it_is(difference):
    printed, turned = cut_off(difference, "+"), cut_off(-difference, "+")
    assert float(printed) == -float(turned)
    assert not printed.startswith("-0.0")
    assert -1e-6 < 100 * abs(difference) - abs(float(printed)) < 0.1
