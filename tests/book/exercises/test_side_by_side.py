"""Chapter 7's checks: what is right passes, and plausible mistakes and what is missing do not."""

from collections import Counter

import numpy as np
import pytest
from exercises import side_by_side as check

from ragbook.evaluation import breakdown
from ragbook.evaluation.metrics import normalize_answer
from ragbook.evaluation.statistics import holm


def unwritten(*_):
    raise NotImplementedError


def right_kappa(a, b):
    lines = [
        {"answers": ["x"], "methods": {"a": {"em": float(x)}, "b": {"em": float(y)}}}
        for x, y in zip(a, b, strict=True)
    ]
    return float(breakdown.kappa(lines, ["a", "b"])[0, 1])


def agreement(a, b):
    return float(np.mean(np.array(a) == np.array(b)))


def without_denominator(a, b):
    p, q = np.mean(a), np.mean(b)
    return agreement(a, b) - float(p * q + (1 - p) * (1 - q))


def even_chance(a, b):
    return (agreement(a, b) - 0.5) / 0.5


def bonferroni(p):
    return [min(1, len(p) * x) for x in p]


def without_maximum(p):
    ranks = np.argsort(np.argsort(p))
    return np.minimum((len(p) - ranks) * np.array(p), 1)


def in_order_of_size(p):
    return sorted(holm(p))


def above_one(p):
    order = np.argsort(p)
    out = np.empty(len(p))
    out[order] = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.array(p)[order])
    return out


def right_error(p, r, groups):
    return breakdown.calibration(p, r, groups)["error"]


def unweighted(p, r, groups):
    parts = np.array_split(np.argsort(p), groups)
    return float(np.mean([abs(p[g].mean() - r[g].mean()) for g in parts]))


def unsorted(p, r, groups):
    parts = np.array_split(np.arange(len(p)), groups)
    return sum(len(g) * abs(p[g].mean() - r[g].mean()) for g in parts) / len(p)


def brier(p, r, groups):
    return float(np.mean((p - r) ** 2))


def right_vote(texts):
    given = [normalize_answer(text) for text in texts]
    return texts[given.index(Counter(given).most_common(1)[0][0])]


def exact_votes(texts):
    return Counter(texts).most_common(1)[0][0]


def first(texts):
    return texts[0]


def normalised(texts):
    return normalize_answer(right_vote(texts))


RIGHT = {
    "kappa": right_kappa,
    "holm": holm,
    "calibration_error": right_error,
    "vote": right_vote,
}
WRONG = {
    "kappa": (agreement, without_denominator, even_chance),
    "holm": (bonferroni, without_maximum, in_order_of_size, above_one),
    "calibration_error": (unweighted, unsorted, brier),
    "vote": (exact_votes, first, normalised),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_passes(name, capsys):
    getattr(check, name)(RIGHT[name])
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("name", "answer"), [(name, each) for name, wrong in WRONG.items() for each in wrong]
)
def test_mistakes_get_a_hint(name, answer, capsys):
    getattr(check, name)(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not right yet: ")
    assert len(said) > 30


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_unwritten_is_said(name, capsys):
    getattr(check, name)(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"


def test_what_the_hints_say_of_the_toys():
    """Holm's values of the chapter and of the hint, worked out without the package."""
    assert np.allclose(holm([0.01, 0.04, 0.03]), [0.01 * 3, 0.03 * 2, max(0.04, 0.06)])
    assert right_kappa([1] * 19 + [0], [1] * 18 + [0, 1]) == pytest.approx(
        (0.9 - 0.905) / (1 - 0.905)
    )
