"""The explorer's data against the predictions they come from, read as a browser would read them."""

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from ragbook import explorer
from ragbook.corpus import Corpus, Question, QuestionSet
from ragbook.corpus.gold import placed
from ragbook.errors import InputError
from ragbook.evaluation.errors import NAMES
from ragbook.explorer.pages import detail, index, question_id, write
from tests.fakes import animals

CORPUS: Corpus = animals(8)
IDS = [passage.id for passage in CORPUS]


def prediction(number: int, **texts: str) -> dict:
    """One line: `blind` has no evidence, the others weigh three passages from `number` on."""
    methods = {}
    for at, (name, text) in enumerate(texts.items()):
        weights = [] if name == "blind" else [0.2, 0.5, 0.3]
        methods[name] = {
            "text": text,
            "log_prob": None if text == "" else -0.5 * at,
            "em": int(text == "fish"),
            "f1": float(text == "fish"),
            "evidence": [
                {"passage_id": IDS[(number + i) % 8], "weight": w} for i, w in enumerate(weights)
            ],
        }
    gold = IDS[number % 8] if number % 2 else None
    return {
        "question": f"What does animal {number} eat?",
        "answers": ["fish", "a </script> & more"],
        "gold_passage": gold,
        "methods": methods,
    }


LINES = [
    prediction(0, blind="fish", one="Fish", other="a fish"),
    prediction(1, blind="fish", one="fish", other="grass"),
    prediction(3, blind="", one="", other="fish"),
]


def value(path):
    """What a data script assigns."""
    found = re.fullmatch(
        r"\(self\.RAGBOOK \?\?= \{answers: \[\]\}\)\.[\w\[\]]+ = (.*);\n", path.read_text("utf-8")
    )
    assert found
    return json.loads(found[1])


def test_the_list_says_who_is_right_and_who_agrees():
    found = index(LINES)
    assert found["methods"] == ["blind", "one", "other"]
    assert found["reading"] == [1, 2]  # what a method without passages says is no disagreement
    rows = [dict(zip(found["fields"], row, strict=True)) for row in found["rows"]]
    assert [row["right"] for row in rows] == ["100", "110", "001"]
    assert [row["agree"] for row in rows] == [1, 0, 0]  # "Fish" and "a fish" are one answer
    assert [row["found"] for row in rows] == [None, 1, 1]
    assert len({row["id"] for row in rows}) == 3


def test_the_kind_is_the_questions():
    text = LINES[1]["question"]
    known = {text: Question(text, ("fish",), IDS[1], rival_passage=IDS[7])}
    kinds = [row[3] for row in index(LINES, known)["rows"]]
    assert kinds == ["plain", "confusable", "plain"]


def test_the_list_says_how_each_answer_is_wrong():
    lines = json.loads(json.dumps(LINES))
    for line in lines:
        for entry in line["methods"].values():
            entry["error"] = "exact" if entry["em"] else "not-in-passages"
    lines[2]["methods"]["one"]["error"] = "cut"
    found = index(lines)
    assert [name for name, _, _ in found["errors"]] == list(NAMES)
    assert found["errors"][4][1] == "not retrieved"
    at = found["fields"].index("kinds")
    kinds = [[NAMES[int(digit)] for digit in row[at]] for row in found["rows"]]
    assert kinds == [[line["methods"][m]["error"] for m in line["methods"]] for line in lines]
    assert detail(lines[2], CORPUS)["methods"]["one"]["error"] == "cut"


def test_the_list_says_what_each_methods_weights_are():
    lines = [prediction(1, fid="fish", **{"rag-token": "fish", "mine": "fish"})]
    found = dict(zip(index(lines)["methods"], index(lines)["measures"], strict=True))
    assert found["fid"] == "attention"
    assert found["mine"] == "its own measure"
    before = found["rag-token"]  # one posterior for the whole answer
    lines[0]["methods"]["rag-token"]["token_evidence"] = []
    now = index(lines)["measures"][1]
    assert "p(z|x,y)" in before
    assert "tokens" in now
    assert "tokens" not in before


def test_what_is_known_of_tokens_and_of_leaving_out_comes_along():
    line = json.loads(json.dumps(LINES[1]))
    entry = line["methods"]["one"]
    for evidence, fall in zip(entry["evidence"], (0.25, 1.5, None), strict=True):
        evidence["loo"] = fall
    ids = [evidence["passage_id"] for evidence in entry["evidence"]]
    entry["token_evidence"] = [{"token": "fish", "weights": {ids[1]: 0.75, ids[0]: 0.25}}]
    found = detail(line, CORPUS)
    at = {one["id"]: place for place, one in enumerate(found["passages"])}
    assert found["methods"]["one"]["weights"] == [
        [at[ids[1]], 0.5, None, 1.5],
        [at[ids[2]], 0.3, None, None],
        [at[ids[0]], 0.2, None, 0.25],
    ]
    weights = {at[ids[1]]: 0.75, at[ids[0]]: 0.25}
    assert found["methods"]["one"]["tokens"] == [{"token": "fish", "weights": weights}]
    assert "tokens" not in found["methods"]["other"]


def test_predictions_stored_before_there_were_kinds_have_none():
    found = index(LINES)
    assert found["errors"] == []
    assert {row[found["fields"].index("kinds")] for row in found["rows"]} == {""}
    assert detail(LINES[0], CORPUS)["methods"]["one"]["error"] is None


def test_an_address_is_the_questions_whatever_stands_before_it():
    ids = [row[0] for row in index(LINES)["rows"]]
    assert [row[0] for row in index(LINES[::-1])["rows"]] == ids[::-1]
    assert question_id("Who?") != question_id("Who!")


def test_a_question_that_stands_twice_has_two_addresses():
    first, second, third = (row[0] for row in index([LINES[0], LINES[1], LINES[0]])["rows"])
    assert second == question_id(LINES[1]["question"])
    assert third == f"{first}-2"


def test_weights_point_at_their_passages():
    line = LINES[1]
    found = detail(line, CORPUS)
    for name, entry in found["methods"].items():
        given = {e["passage_id"]: e["weight"] for e in line["methods"][name]["evidence"]}
        read = {found["passages"][at]["id"]: weight for at, weight in entry["weights"]}
        assert read == given
        weights = [weight for _, weight in entry["weights"]]
        assert weights == sorted(weights, reverse=True)
    assert [p["id"] for p in found["passages"]] == [IDS[2], IDS[3], IDS[1]]  # by weight
    assert found["passages"][0]["text"] == CORPUS[2].text


def test_a_gold_passage_that_nobody_had_is_shown_last_and_said_to_be_unused():
    line = prediction(1, one="grass") | {"gold_passage": IDS[6]}
    question = Question(line["question"], ("fish",), IDS[6], second_passage=IDS[2])
    passages = detail(line, CORPUS, question)["passages"]
    assert [(p["id"], p["mark"], p["used"]) for p in passages] == [
        (IDS[2], "second", 1),
        (IDS[3], "", 1),
        (IDS[1], "", 1),
        (IDS[6], "gold", 0),
    ]


def test_a_gold_passage_of_another_corpus_is_not_shown():
    """Nor is it the end of a run that took hours."""
    line = prediction(1, one="grass") | {"gold_passage": "wiki:7"}
    passages = detail(line, CORPUS)["passages"]
    assert {p["mark"] for p in passages} == {""}
    assert len(passages) == 3


def test_each_piece_of_a_gold_document_is_marked():
    corpus = Corpus("pieces", [replace(p, id=f"doc-{i + 1}") for i, p in enumerate(CORPUS)])
    line = prediction(1, one="grass") | {"gold_passage": "doc"}
    methods: Any = line["methods"]
    for at, each in enumerate(methods["one"]["evidence"]):
        each["passage_id"] = f"doc-{at + 2}"
    (question,) = placed(
        QuestionSet("q", "all", [Question(line["question"], ("fish",), "doc")]), corpus
    )
    assert [p["mark"] for p in detail(line, corpus, question)["passages"]] == ["gold"] * 3
    found = index([line], {question.text: question})
    assert found["rows"][0][found["fields"].index("found")] == 1
    (unplaced,) = [p for p in detail(line, corpus)["passages"] if p["mark"] == "gold"]
    assert (unplaced["id"], unplaced["used"]) == ("doc-1", 0)


def test_all_that_is_written_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("ragbook.explorer.pages.PART", 2)
    files = {path.name: path for path in write(tmp_path / "new" / "folder", LINES, CORPUS)}
    assert set(files) == {*explorer.ASSETS, "questions.js", "answers-0.js", "answers-1.js"}
    assert value(files["questions.js"]) == index(LINES) | {"first": None}
    both = value(files["answers-0.js"]) + value(files["answers-1.js"])
    assert both == [detail(line, CORPUS) for line in LINES]
    assert {p.name for p in (tmp_path / "new" / "folder").iterdir()} == set(files)


def test_what_cannot_be_explored_is_said(tmp_path):
    with pytest.raises(InputError, match="no prediction"):
        write(tmp_path, [], CORPUS)
    with pytest.raises(InputError, match="has no passage"):
        write(tmp_path, LINES, animals(2))
