"""What chapter 12 says of how many questions a comparison needs."""

import gzip
import json
import math
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any

import jupytext
import numpy as np
import pytest
from scipy.stats import binom

from ragbook.evaluation.statistics import ALPHA, bootstrap_ci, paired_tests

BOOK = Path(__file__).resolve().parents[2] / "book"
TEXT = (BOOK / "12-your-data.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chapter():
    """The functions that the chapter writes out."""
    cells = jupytext.read(BOOK / "12-your-data.py").cells
    (source,) = (cell.source for cell in cells if "def half_width(" in cell.source)
    names: dict[str, Any] = {"math": math, "NormalDist": NormalDist}
    exec(source.split("delta, shares =")[0], names)
    return names


def sample(u, delta, n, comparisons, seed=0):
    """Differences [n, comparisons]: which of two methods is right, where only one is."""
    chances = [(u + delta) / 2, (u - delta) / 2, 1 - u]
    return np.random.default_rng(seed).choice([1.0, -1.0, 0.0], (n, comparisons), p=chances)


def test_the_numbers_of_the_formula_are_the_percentiles_that_are_named():
    assert "numbers 1.96 and 0.84 are the 97.5th and the 80th percentile" in TEXT
    assert [round(NormalDist().inv_cdf(p), 2) for p in (0.975, 0.8)] == [1.96, 0.84]


def exact_power(u, delta, n):
    """How often the signs of the questions on which one method is right give p < 0.05."""
    m = np.arange(n + 1)  # such questions
    most = binom.ppf(ALPHA / 2, m, 0.5)
    most = np.where(2 * binom.cdf(most, m, 0.5) < ALPHA, most, most - 1)  # right, if few
    chance = (u + delta) / (2 * u)
    found = binom.cdf(most, m, chance) + binom.cdf(most, m, 1 - chance)
    return float(np.sum(binom.pmf(m, n, u) * found))


def test_the_test_finds_fewer_differences_if_few_questions_differ(chapter):
    assert "finds fewer than the formula says, for $u = 10$ % in 76 % of samples" in TEXT
    exact = [exact_power(u, 0.05, chapter["enough"](u, 0.05)) for u in (0.1, 0.2, 0.3)]
    assert round(100 * exact[0]) == 76
    assert exact == sorted(exact)
    assert exact[-1] < 0.8


@pytest.mark.parametrize("u", [0.1, 0.3])
def test_the_formulas_describe_the_packages_interval_and_test(chapter, u):
    n = chapter["enough"](u, 0.05)
    assert chapter["power"](u, 0.05, n - 1) < 0.8 <= chapter["power"](u, 0.05, n)
    drawn = sample(u, 0.05, n, 300)
    found = np.mean([test.p < ALPHA for test in paired_tests(drawn, resamples=500)])
    # Three standard errors of 300 comparisons.
    assert found == pytest.approx(exact_power(u, 0.05, n), abs=0.075)
    low, high = bootstrap_ci(drawn[:, 0], resamples=2000)
    expected = chapter["half_width"](drawn[:, 0].var(), n)
    assert (high - low) / 2 == pytest.approx(expected, rel=0.1)


def test_methods_that_read_the_same_passages_agree_on_most_questions():
    assert "Methods that read the same passages agree on most questions" in TEXT
    with gzip.open(BOOK / "results" / "predictions.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line)["methods"] for line in file]
    for pair in combinations(("realm", "rag-sequence", "rag-token", "fid"), 2):
        one, other = (np.array([line[name]["em"] for line in lines]) for name in pair)
        assert np.mean(one != other) < 0.15, pair
