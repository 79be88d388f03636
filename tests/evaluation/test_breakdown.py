"""A comparison taken apart, against counts by hand and independent definitions."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.evaluation import breakdown

RIGHT = {
    "blind": [0, 0, 0, 0, 1, 0],
    "one": [1, 1, 0, 1, 0, 0],
    "two": [1, 0, 1, 1, 0, 0],
}
GOLD = ["p0", "p0", "p1", "p9", "p9", None]


def lines():
    out = []
    for i in range(6):
        evidence = [{"passage_id": f"p{j}", "weight": w} for j, w in enumerate((0.6, 0.3, 0.1))]
        methods = {
            name: {
                "text": "the fish" if name == "two" and i < 2 else "Fish" if values[i] else name,
                "log_prob": None if i == 5 else -float(i),
                "em": values[i],
                "f1": float(values[i]),
                "evidence": [] if name == "blind" else evidence,
            }
            for name, values in RIGHT.items()
        }
        out.append(
            {"question": f"q{i}", "answers": ["fish"], "gold_passage": GOLD[i], "methods": methods}
        )
    return out


LINES = lines()
BITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def test_kinds_are_counted_apart_and_frequent_ones_come_first():
    questions = [
        Question(f"q{i}", ("fish",), rival_passage="p5" if i in (0, 1) else None) for i in range(6)
    ]
    found = breakdown.by_kind(LINES, questions)
    assert list(found) == ["plain", "confusable"]
    assert [entry["n"] for entry in found.values()] == [4, 2]
    assert found["confusable"]["em"]["one"]["mean"] == 1
    assert found["confusable"]["em"]["two"]["mean"] == 0.5
    assert found["plain"]["em"]["one"]["mean"] == 0.25
    with pytest.raises(InputError, match="'q5' is not among"):
        breakdown.by_kind(LINES, questions[:5])


def test_evidence_has_three_cases():
    found = breakdown.by_evidence(LINES)
    assert set(found) == {"one", "two"}
    one = {case: (entry["n"], entry["mean"]) for case, entry in found["one"].items()}
    assert one == {"gold": (2, 1.0), "another": (1, 0.0), "not retrieved": (2, 0.5)}


def test_evidence_by_what_leaving_out_costs():
    """Another passage is then the heaviest, one that cannot be missed weighs most, and lines for
    which it was not measured do not count."""

    def line(em, **loo):
        evidence = [{"passage_id": p, "weight": 0.5, "loo": cost} for p, cost in loo.items()]
        return {
            "answers": ["x"],
            "gold_passage": "a",
            "methods": {"m": {"em": em, "evidence": evidence}},
        }

    unmeasured = [{"passage_id": "a", "weight": 1.0}]
    lines = [
        line(1, a=0.5, b=-0.2),
        line(0, a=0.5, b=0.7),
        line(0, a=2.0, b=None),
        line(1, a=None, b=3.0),
        line(0, b=1.0, c=0.0),
        {**line(1), "methods": {"m": {"em": 1, "evidence": unmeasured}}},
    ]
    found = breakdown.by_evidence(lines, leave_one_out=True)["m"]
    counted = {case: (entry["n"], entry["mean"]) for case, entry in found.items()}
    assert counted == {"gold": (2, 1.0), "another": (2, 0.0), "not retrieved": (1, 0.0)}
    assert breakdown.by_evidence(lines)["m"]["gold"]["n"] == 5


def test_who_is_right_alone():
    found = breakdown.shared(LINES, ["one", "two"])
    assert found == {"n": 6, "alone": {"one": 1, "two": 1}, "all": 2, "any": 4, "none": 2}
    assert breakdown.shared(LINES, list(RIGHT))["alone"]["blind"] == 1


def test_agreement_is_of_normalized_answers():
    table = breakdown.agreement(LINES, ["one", "two"])
    assert table.tolist() == [[1, 3 / 6], [3 / 6, 1]]  # questions 0, 1 and 3: "Fish", "the fish"


@given(BITS)
def test_kappa_is_agreement_beyond_chance(pairs):
    """Worked out from the four cells of the table of both methods' counts."""
    predictions = [
        {"answers": ["x"], "methods": {"a": {"em": int(a)}, "b": {"em": int(b)}}} for a, b in pairs
    ]
    n = len(pairs)
    cells = np.array([[sum(p == (x, y) for p in pairs) for y in (0, 1)] for x in (0, 1)]) / n
    chance = float(cells.sum(1) @ cells.sum(0))
    expected = 1.0 if chance == 1 else (np.trace(cells) - chance) / (1 - chance)
    table = breakdown.kappa(predictions, ["a", "b"])
    assert table[0, 1] == pytest.approx(expected)
    assert table[0, 1] == pytest.approx(table[1, 0])
    assert np.diag(table) == pytest.approx(1)


def test_an_impossible_answer_has_probability_zero():
    p = breakdown.probabilities(LINES, "one")
    assert p.tolist() == [*(math.exp(-i) for i in range(5)), 0.0]


def test_honest_probabilities_have_a_small_error_and_boasts_a_large_one():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=20_000)
    correct = rng.uniform(size=20_000) < p
    honest = breakdown.calibration(p, correct)
    assert honest["error"] < 0.015
    for group in honest["groups"]:
        assert group["ci95"][0] - 0.02 < group["probability"] < group["ci95"][1] + 0.02
    boast = breakdown.calibration(np.ones(100), np.repeat([1, 0], 50), groups=1)
    assert boast["error"] == pytest.approx(0.5)
    alone = breakdown.calibration(p[:10], correct[:10])["groups"]  # as many groups as answers
    assert [group["probability"] for group in alone] == sorted(p[:10])
    with pytest.raises(InputError, match="cannot be cut into 10"):
        breakdown.calibration(p[:9], correct[:9])


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=10, max_size=80))
def test_groups_share_all_answers(answers):
    p, correct = np.array([a for a, _ in answers]) / 9, np.array([b for _, b in answers])
    groups = breakdown.calibration(p, correct, groups=5)["groups"]
    counts = [g["n"] for g in groups]
    assert sum(counts) == len(answers)
    assert max(counts) - min(counts) <= 1
    assert np.dot(counts, [g["mean"] for g in groups]) == pytest.approx(correct.sum())
    means = [g["probability"] for g in groups]
    assert all(a <= b + 1e-12 for a, b in pairwise(means))


NUMBERS = st.lists(st.integers(-3, 3), min_size=1, max_size=20)


@given(NUMBERS, NUMBERS)
def test_auroc_is_mann_and_whitneys_statistic(a, b):
    expected = stats.mannwhitneyu(a, b).statistic / (len(a) * len(b))
    assert breakdown.auroc(a, b) == pytest.approx(expected)


POINTS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    min_size=1,
)


@given(POINTS)
def test_the_front_is_beaten_by_none_and_beats_the_rest(points):
    front = breakdown.pareto(points)

    def beats(a, b):
        (c, s), (cost, score) = points[a], points[b]
        return c <= cost and s >= score and points[a] != points[b]

    assert front
    assert not any(beats(a, b) for a in points for b in front)
    assert all(any(beats(a, b) for a in front) for b in points if b not in front)
    assert [points[n][0] for n in front] == sorted(points[n][0] for n in front)
