"""What the benchmarks measure against is itself right."""

import runpy
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


KneserNey = runpy.run_path(str(BENCHMARKS / "kneser_ney.py"))["KneserNey"]


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=4),
    st.tuples(st.integers(-1, 5), st.integers(-1, 5)),
)
@settings(deadline=None)
def test_kneser_ney_is_a_distribution(texts, context):
    model = KneserNey(texts, 6)
    for shown in (context, context[1:], ()):
        assert sum(model.prob(shown, token) for token in range(6)) == pytest.approx(1)
        assert all(model.prob(shown, token) >= 0 for token in range(6))


def test_kneser_ney_counts_contexts_below_and_tokens_above():
    """Written out by hand for one text: "Francisco" follows one word only, however often."""
    san, francisco, glasses = 0, 1, 2
    texts = [[san, francisco] * 3 + [glasses], [san, glasses]]
    model = KneserNey(texts, 4)
    bigrams = {(-1, san), (san, francisco), (francisco, san), (francisco, glasses), (san, glasses)}
    follows = Counter(second for _, second in bigrams)
    once, twice = (sum(c == n for c in follows.values()) for n in (1, 2))
    discount = once / (once + 2 * twice)
    total = sum(follows.values())
    lower = discount * len(follows) / total / 4
    assert model.prob((), francisco) == pytest.approx(
        (follows[francisco] - discount) / total + lower
    )
    assert model.prob((), glasses) > model.prob((), francisco)
    assert model.prob((san,), francisco) > model.prob((glasses,), francisco)
