"""Stored comparisons with other numbers of passages, put side by side."""

import pytest
from experiments.papers import gains
from experiments.passages_read import passages_read

from ragbook.errors import InputError
from ragbook.evaluation import Comparison


def compared(k, ranks, **right):
    """A comparison with that k: the gold passages' ranks, and what each method has right."""
    lines = [
        {
            "question": f"question {at}?",
            "gold_rank": rank,
            "methods": {name: {"em": int(each[at])} for name, each in right.items()},
        }
        for at, rank in enumerate(ranks)
    ]
    return Comparison({"k": k, "methods": {name: {} for name in right}}, lines)


def test_the_first_questions_of_all_are_compared():
    few = compared(2, [1, 3, None, 2], fid="1000", realm="0000")
    many = compared(10, [1, 3, None], fid="110", realm="000")
    found = passages_read([many, few])
    assert list(found) == ["2", "10"]
    assert [part["n"] for part in found.values()] == [3, 3]
    assert found["2"]["recall"]["mean"] == pytest.approx(1 / 3)
    assert found["10"]["recall"]["mean"] == pytest.approx(2 / 3)
    assert found["2"]["methods"]["fid"]["right"] == "100"
    assert found["10"]["methods"]["fid"]["em"]["mean"] == pytest.approx(2 / 3)
    (step,) = gains(found, ["fid"], [("2", "10")])  # the form that the figures' tables take
    assert step["difference"] == pytest.approx(1 / 3)


def test_other_questions_are_refused():
    one, other = compared(1, [1, 1], fid="11"), compared(5, [1, 1], fid="11")
    other.predictions[1]["question"] = "another?"
    with pytest.raises(InputError, match="k = 5 is of other questions"):
        passages_read([one, other])
