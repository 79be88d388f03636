"""The worked example of chapter 10: its numbers, and that it is compared like any other method."""

import json
import math

import pytest

from ragbook.cli import main
from ragbook.corpus import Passage, QuestionSet, load_corpus, load_questions
from ragbook.errors import InputError
from ragbook.evaluation import compare, explorer
from ragbook.methods import check_names, load
from ragbook.methods.titles import Titles
from tests.fakes import FixedRetriever
from tests.methods.conftest import PASSAGES, QUESTIONS

NAME = "ragbook.methods.titles:Titles"
# Two passages of one title, which together are likelier than the best passage.
RETRIEVER = FixedRetriever(
    [Passage("a", "Elbe", "1"), Passage("b", "Rhine", "2"), Passage("c", "Rhine", "3")],
    [math.log(4), math.log(3), math.log(3)],
)


def test_passages_of_one_title_add_up():
    (answer, _) = Titles(RETRIEVER).answer(QUESTIONS, 3)
    assert answer.text == "Rhine"
    assert answer.log_prob == pytest.approx(math.log(6 / 10), rel=1e-5)
    weights = {each.passage_id: each.weight for each in answer.evidence}
    assert weights == pytest.approx({"a": 0, "b": 0.5, "c": 0.5})


def test_probabilities_of_all_titles_sum_to_one():
    method = Titles(RETRIEVER)
    total = sum(method.log_prob(QUESTIONS[:1], [t], 3).exp().item() for t in ("elbe", "Rhine"))
    assert total == pytest.approx(1)
    assert method.log_prob(QUESTIONS, ["Danube", "Elbe"], 3).tolist() == pytest.approx(
        [-math.inf, math.log(0.4)], rel=1e-5
    )
    for question, answer in zip(QUESTIONS, method.answer(QUESTIONS, 3), strict=True):
        said = method.log_prob([question], [answer.text], 3).item()
        assert said == pytest.approx(answer.log_prob)


def test_no_questions_have_no_answers():
    assert Titles(RETRIEVER).answer([]) == []
    assert Titles(RETRIEVER).log_prob([], []).shape == (0,)


def test_a_method_of_ones_own_is_compared_shown_and_explored(tmp_path):
    """Named by the place of its code: in the results, the table and the explorer, with no change
    elsewhere."""
    command = ["compare", "--methods", NAME, "--retriever", "bm25", "--questions", "miniwiki"]
    assert main([*command, "--split", "dev", "--limit", "12", "--out", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert list(results["methods"]) == ["titles"]
    assert "| titles |" in (tmp_path / "table.md").read_text("utf-8")
    assert (tmp_path / "side_by_side.png").stat().st_size > 2000
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open(encoding="utf-8")]
    questions = load_questions("miniwiki", "dev").head(12)
    explorer.write(tmp_path / "explorer", lines, load_corpus("miniwiki"), questions)
    assert '"methods":["titles"]' in (tmp_path / "explorer" / "questions.js").read_text("utf-8")


def test_it_stands_beside_the_books_methods():
    retriever = FixedRetriever(PASSAGES, [0.9, 0.7, 0.4, 0.1])
    methods = load([NAME, "closed-book"], retriever)
    assert [method.name for method in methods] == ["closed-book", "titles"]
    found = compare(methods, QuestionSet("rivers", "dev", QUESTIONS), k=3, progress=False)
    assert found.results["methods"]["titles"]["em"] == 0.5  # "Danube" stands first for both
    assert "titles" in found.latex()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ragbook.methods.titles:Nothing", "has no attribute 'Nothing'"),
        ("no.such.module:Titles", "No module named"),
        (":Titles", "Empty module name"),
        ("tiltes", "name your own, module:Class"),
    ],
)
def test_what_cannot_be_found_is_said(name, why):
    with pytest.raises(InputError, match=why):
        check_names([name])
