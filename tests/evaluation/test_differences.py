"""Two comparisons beside each other: every figure by another way, and no order without a test."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import QuestionSet
from ragbook.errors import InputError
from ragbook.evaluation import Comparison, compare, holm, paired_test
from ragbook.evaluation.differences import (
    change_sheet,
    differences,
    score_sheet,
    shared_methods,
    shared_questions,
)
from tests.evaluation.test_unanswered import QUESTIONS, Method


def compared(questions, k: int = 3, **every: int) -> Comparison:
    methods: list[Any] = [Method(name.replace("_", "-"), n) for name, n in every.items()]
    return compare(methods, QuestionSet("numbers", "dev", questions), k=k)


FIRST = compared(QUESTIONS, fid=4, rag_token=2)
SECOND = compared(QUESTIONS, k=2, rag_token=3, fid=1)
METHODS = [("fid", "fid"), ("rag-token", "rag-token")]


def test_the_shared_methods_and_every_figure_by_hand():
    assert shared_methods(FIRST, SECOND) == METHODS
    found = differences(FIRST, SECOND, METHODS, seed=3)
    assert found["questions"] == {
        "both": 20, "only_a": 0, "only_b": 0, "scored": 20, "other_answers": 0,
    }  # fmt: skip
    assert {one["what"]: (one["a"], one["b"]) for one in found["settings"]} == {"k": (3, 2)}
    p_values = {"em": [], "f1": []}
    for entry, (name, _) in zip(found["methods"], METHODS, strict=True):
        one, two = ([line["methods"][name] for line in each.predictions]
                    for each in (FIRST, SECOND))  # fmt: skip
        for metric in ("em", "f1"):
            a, b = [e[metric] for e in one], [e[metric] for e in two]
            test = paired_test(b, a, seed=3)
            assert entry[metric]["difference"] == pytest.approx(sum(b) / 20 - sum(a) / 20)
            assert entry[metric]["a"] == pytest.approx(FIRST.results["methods"][name][metric])
            assert entry[metric]["b"] == pytest.approx(SECOND.results["methods"][name][metric])
            assert entry[metric]["ci95"] == pytest.approx(list(test.ci95))
            assert entry[metric]["p"] == pytest.approx(test.p)
            p_values[metric].append(test.p)
        changes = [
            "right to wrong" if x["em"] > y["em"]
            else "wrong to right" if x["em"] < y["em"]
            else "same text" if x["text"] == y["text"] else "other text"
            for x, y in zip(one, two, strict=True)
        ]  # fmt: skip
        assert {kind: n for kind, n in entry["counts"].items() if n} == {
            kind: changes.count(kind) for kind in set(changes)
        }
        assert [(one["id"], one["change"]) for one in entry["changed"]] == [
            (str(i), kind) for i, kind in enumerate(changes, 1) if kind != "same text"
        ]
    for metric in ("em", "f1"):
        assert [entry[metric]["p_holm"] for entry in found["methods"]] == pytest.approx(
            holm(p_values[metric])
        )
    # fid was right on every fourth and is right on all but the silent one.
    assert found["methods"][0]["counts"]["wrong to right"] == 14
    first = found["methods"][0]["changed"][0]
    assert (first["question"], first["a"], first["b"]) == ("Which is 1?", "number", "Number 1")


def test_a_comparison_does_not_differ_from_itself():
    found = differences(FIRST, FIRST, METHODS)
    assert found["settings"] == []
    for entry in found["methods"]:
        assert entry["changed"] == []
        assert (entry["em"]["difference"], entry["em"]["p_holm"]) == (0, 1)
    sheet = score_sheet(found)
    assert sheet is not None
    assert "No difference is supported by the tests." in sheet.caption
    assert "†" not in "".join(cell.marks for row in sheet.rows for cell in row)


@settings(max_examples=8)
@given(st.integers(1, 6), st.integers(1, 6))
def test_the_other_way_round_all_signs_turn(a, b):
    one, two = compared(QUESTIONS, fid=a), compared(QUESTIONS, fid=b)
    (there,) = differences(one, two, [("fid", "fid")])["methods"]
    (back,) = differences(two, one, [("fid", "fid")])["methods"]
    assert there["em"]["difference"] == pytest.approx(-back["em"]["difference"])
    assert there["em"]["p"] == pytest.approx(back["em"]["p"])
    assert there["em"]["ci95"] == pytest.approx([-end for end in back["em"]["ci95"][::-1]])
    assert there["counts"]["right to wrong"] == back["counts"]["wrong to right"]
    assert there["counts"]["other text"] == back["counts"]["other text"]


def test_an_order_is_claimed_only_where_a_test_supports_it():
    found = differences(FIRST, SECOND, METHODS)
    sheet = score_sheet(found)
    assert sheet is not None
    fid, token = found["methods"]
    assert fid["em"]["p_holm"] < 0.05 < token["em"]["p_holm"]  # the one is clear, the other is not
    assert token["em"]["difference"] < 0
    marked = [row[0].text for row in sheet.rows if row[3].marks]
    assert marked == ["fid EM", "fid F1"]
    assert sheet.caption.endswith(
        "Supported by the tests: EM is higher in B for fid; F1 is higher in B for fid; no other "
        "difference is."
    )
    back = score_sheet(differences(SECOND, FIRST, METHODS))
    assert back is not None
    assert "EM is lower in B for fid;" in back.caption
    assert not any(cell.best for row in sheet.rows for cell in row)


def test_a_p_value_that_is_small_alone_need_not_be_among_many():
    """Adjusted for the methods: with one it counts, with six the same test does not."""
    few = compared(QUESTIONS[:12], fid=2)
    more = compared(QUESTIONS[:12], fid=1)
    alone = differences(few, more, [("fid", "fid")])["methods"][0]["em"]
    assert alone["p"] < 0.08
    many = compared(QUESTIONS[:12], fid=2, realm=3, rag_token=3)
    most = compared(QUESTIONS[:12], fid=1, realm=3, rag_token=3)
    names = [(name, name) for name in ("fid", "realm", "rag-token")]
    entry = differences(many, most, names)["methods"][0]["em"]
    assert entry["p"] == alone["p"]
    assert entry["p_holm"] == pytest.approx(3 * alone["p"])


def test_questions_are_matched_by_id_and_text_then_by_text():
    named = [replace(q, id=f"n{i}") for i, q in enumerate(QUESTIONS)]
    a = compared(named[:12], fid=2)
    # Other order, some of them new, one of them under another id, one with another text.
    asked = [*named[15:4:-1], replace(named[0], id="new"), replace(named[1], text="Which is 19?")]
    b = compared(asked, fid=2)
    pairs = shared_questions(a, b)
    assert [question_id for question_id, _, _ in pairs] == ["n0", *(f"n{i}" for i in range(5, 12))]
    assert all(one["question"] == two["question"] for _, one, two in pairs)
    found = differences(a, b, [("fid", "fid")])["questions"]
    assert (found["both"], found["only_a"], found["only_b"]) == (8, 4, 5)
    assert "8 questions that both asked (4 are only in A, 5 only in B)" in (
        change_sheet(differences(a, b, [("fid", "fid")])).caption
    )


def test_a_text_that_stands_twice_is_not_matched_without_its_id():
    a = compared([replace(QUESTIONS[0], id="x"), replace(QUESTIONS[1], id="y")], fid=2)
    b = compared([replace(QUESTIONS[0], id="v"), replace(QUESTIONS[0], id="w")], fid=2)
    assert shared_questions(a, b) == []
    with pytest.raises(InputError, match="no question in common"):
        differences(a, b, [("fid", "fid")])
    c = compared([replace(QUESTIONS[0], id="w"), replace(QUESTIONS[0], id="x")], fid=2)
    assert [question_id for question_id, _, _ in shared_questions(a, c)] == ["x"]


def test_questions_of_the_same_number_in_a_shorter_run():
    found = differences(FIRST, compared(QUESTIONS[:7], fid=4), [("fid", "fid")])
    assert found["questions"]["both"] == 7
    assert found["methods"][0]["changed"] == []


def test_other_right_answers_are_counted_and_unknown_ones_not_scored():
    other = [replace(q, answers=("something",)) if i < 3 else q for i, q in enumerate(QUESTIONS)]
    other[10] = replace(other[10], answers=())
    found = differences(FIRST, compared(other, fid=4), [("fid", "fid")])
    assert found["questions"]["other_answers"] == 3
    assert found["questions"]["scored"] == 19
    assert found["methods"][0]["counts"]["right to wrong"] == 1  # of 0; 1 and 2 were wrong before
    unknown = [replace(q, answers=()) for q in QUESTIONS]
    found = differences(FIRST, compared(unknown, fid=1), [("fid", "fid")])
    assert found["methods"][0]["em"] is None
    assert score_sheet(found) is None
    counts = found["methods"][0]["counts"]
    assert (counts["other text"], counts["same text"]) == (14, 6)
    assert counts["right to wrong"] == counts["wrong to right"] == 0


def test_a_method_against_another():
    found = differences(FIRST, SECOND, [("rag-token", "fid")])
    (entry,) = found["methods"]
    assert (entry["a"], entry["b"]) == ("rag-token", "fid")
    assert entry["em"]["a"] == FIRST.results["methods"]["rag-token"]["em"]
    assert entry["em"]["b"] == SECOND.results["methods"]["fid"]["em"]
    assert change_sheet(found).rows[0][0].text == "rag-token / fid"
    with pytest.raises(InputError, match="realm is not among the methods"):
        differences(FIRST, SECOND, [("fid", "realm")])
    with pytest.raises(InputError, match="share no method: fid and rag-token there, realm here"):
        shared_methods(FIRST, compared(QUESTIONS, realm=1))
