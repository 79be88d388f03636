"""Several seeds summarised: means by hand, and tests that hold for seeds and questions."""

import json

import pytest
from experiments import trained

from ragbook.evaluation.statistics import over_seeds


def made(em_a, em_b):
    return {
        name: {"em": em, "contains": em, "cut": [0.0] * len(em)}
        for name, em in (("a", em_a), ("b", em_b))
    }


def test_a_summary_is_over_seeds_and_questions():
    by_seed = [made([1.0, 1.0, 0.0, 1.0], [0.0] * 4), made([1.0, 0.0, 0.0, 1.0], [0.0, 0, 0, 1])]
    out = trained.summary(by_seed)
    em = out["methods"]["a"]["em"]
    assert em["mean"] == pytest.approx(5 / 8)
    assert em["by_seed"] == [0.75, 0.5]
    assert em["ci95"] == list(over_seeds([[1, 1, 0, 1], [1, 0, 0, 1]]).ci95)
    assert out["methods"]["b"]["cut"]["mean"] == 0
    (pair,) = out["paired"]
    assert (pair["a"], pair["b"], pair["difference"]) == ("a", "b", pytest.approx(0.5))
    assert pair["adjusted_p"] == pair["p"]  # there is one pair
    json.dumps(out)


def test_every_pair_is_adjusted_for_all():
    seeds = [{name: made([1.0] * 9, [0.0] * 9)[x] for name, x in zip("cde", "aab", strict=True)}]
    tests = {(t["a"], t["b"]): t for t in trained.summary(seeds * 2)["paired"]}
    assert len(tests) == 3
    assert tests["c", "d"]["adjusted_p"] == 1
    assert tests["c", "e"]["adjusted_p"] == pytest.approx(3 * tests["c", "e"]["p"])
