"""The worked example of chapter 10: its numbers, and that it is compared like any other method."""

import json
import math

import pytest
from experiments.names_method import Names, names

from ragbook.cli import main
from ragbook.corpus import Passage, Question, QuestionSet
from ragbook.errors import InputError
from ragbook.evaluation import compare
from ragbook.methods import check_names, load
from tests.fakes import FixedRetriever

PLACE = "experiments.names_method:Names"
PASSAGES = [
    Passage("a", "Elbe", "The river passes Dresden, then Hamburg. Hamburg has a harbour."),
    Passage("b", "Rhine", "The river turns north at Basel, and by Dresden it does not flow."),
    Passage("c", "Lakes", "A lake has no end but the shore."),
]
RETRIEVER = FixedRetriever(PASSAGES, [math.log(5), math.log(4), math.log(1)])
QUESTIONS = [
    Question("Which town has a harbour?", ("Hamburg",), "a"),
    Question("Which town beside Hamburg does the river pass?", ("Dresden",), "a"),
]


def test_names_are_counted_and_those_of_the_question_are_not():
    assert [dict(c) for c in names(QUESTIONS[0].text, PASSAGES)] == [
        {"Dresden": 1, "Hamburg": 2},
        {"Basel": 1, "Dresden": 1},
        {},
    ]
    assert dict(names(QUESTIONS[1].text, PASSAGES)[0]) == {"Dresden": 1}


def test_probabilities_are_the_counts():
    """Hamburg: 2/3 of the first passage's names. Dresden: 1/3 of them and 1/2 of the second's."""
    method = Names(RETRIEVER)
    expected = {"Hamburg": 0.5 * 2 / 3, "Dresden": 0.5 / 3 + 0.4 / 2, "basel": 0.4 / 2, "Bonn": 0}
    for answer, p in expected.items():
        assert method.log_prob(QUESTIONS[:1], [answer], 3).exp().item() == pytest.approx(p)
    # What is missing to 1 is the prior of the passage without a name.
    assert sum(expected.values()) == pytest.approx(0.9)


def test_the_answer_is_the_likeliest_name_and_its_evidence_the_posterior():
    answers = Names(RETRIEVER).answer(QUESTIONS, 3)
    assert [answer.text for answer in answers] == ["Dresden", "Dresden"]
    assert math.exp(answers[0].log_prob) == pytest.approx(0.5 / 3 + 0.2)
    weights = {each.passage_id: each.weight for each in answers[0].evidence}
    total = 0.5 / 3 + 0.2
    assert weights == pytest.approx({"b": 0.2 / total, "a": 0.5 / 3 / total, "c": 0})
    for question, answer in zip(QUESTIONS, answers, strict=True):
        said = Names(RETRIEVER).log_prob([question], [answer.text], 3).item()
        assert said == pytest.approx(answer.log_prob)


def test_where_there_is_no_name_there_is_no_answer():
    (answer,) = Names(FixedRetriever(PASSAGES[2:], [0.0])).answer(QUESTIONS[:1])
    assert (answer.text, answer.log_prob) == ("", -math.inf)
    assert sum(each.weight for each in answer.evidence) == pytest.approx(1)


def test_no_questions_have_no_answers():
    assert Names(RETRIEVER).answer([]) == []
    assert Names(RETRIEVER).log_prob([], []).shape == (0,)


def test_a_method_of_ones_own_is_compared_shown_and_explored(tmp_path):
    """Named by the place of its code: in the results, the table and the explorer, with no change
    elsewhere."""
    command = ["compare", "--methods", PLACE, "--retriever", "bm25", "--questions", "miniwiki"]
    assert main([*command, "--split", "dev", "--limit", "12", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert list(results["methods"]) == ["names"]
    assert "| names |" in (tmp_path / "table.md").read_text("utf-8")
    assert (tmp_path / "side_by_side.png").stat().st_size > 2000
    assert '"methods":["names"]' in (tmp_path / "explorer" / "questions.js").read_text("utf-8")


def test_it_stands_beside_the_books_methods():
    methods = load([PLACE, "closed-book"], RETRIEVER)
    assert [method.name for method in methods] == ["closed-book", "names"]
    found = compare(methods, QuestionSet("towns", "dev", QUESTIONS), k=3, progress=False)
    assert found.results["methods"]["names"]["em"] == 0.5
    assert "names" in found.latex()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("experiments.names_method:Nothing", "has no attribute 'Nothing'"),
        ("no.such.module:Names", "No module named"),
        (":Names", "Empty module name"),
        ("nmaes", "name your own, module:Class"),
    ],
)
def test_what_cannot_be_found_is_said(name, why):
    with pytest.raises(InputError, match=why):
        check_names([name])
