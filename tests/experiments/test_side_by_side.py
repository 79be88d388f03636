"""What is measured of all methods, with made-up ones: counts that can be worked out by hand."""

import math
import subprocess
from types import SimpleNamespace

import pytest
from experiments import side_by_side

from ragbook.corpus import Corpus, Question, miniwiki
from ragbook.methods.base import Answer
from tests.fakes import FixedRetriever, animals

CORPUS: Corpus = animals(6)
QUESTIONS = [
    Question(f"Which animal is number {i}?", (CORPUS[i].title,), CORPUS[i].id) for i in range(6)
]


class Third:
    """Says the title of the third passage it is shown, or nothing with probability 0."""

    parameters = 0

    def __init__(self, name, retriever):
        self.name, self.retriever = name, retriever

    def answer(self, questions, k=5):
        out = []
        for question, found in zip(questions, self.retriever.retrieve(questions, k), strict=True):
            there = len(found.ids) > 2
            text = found.passages[2].title if there else ""
            out.append(Answer(question.text, text, -1.5 if there else -math.inf, (), 0.25))
        return out


@pytest.fixture(autouse=True)
def two_methods(monkeypatch):
    def load(names, retriever, verbatim):
        return [Third(name, retriever) for name in "ab"]

    monkeypatch.setattr(side_by_side, "load", load)
    monkeypatch.setattr(side_by_side, "BATCH", 4)  # the last batch is not a whole one


def test_a_setting_counts_hits_and_right_answers():
    retriever = FixedRetriever(CORPUS, range(6, 0, -1))
    out = side_by_side.setting(retriever, QUESTIONS, 3)
    assert (out["n"], out["k"]) == (6, 3)
    assert out["recall"]["mean"] == pytest.approx(3 / 6)
    assert set(out["methods"]) == {"a", "b"}
    assert out["methods"]["a"]["em"]["mean"] == pytest.approx(1 / 6)
    # The same third passage is named every time, which answers the third question.
    assert out["methods"]["a"]["right"] == "001000"
    assert out["methods"]["a"]["seconds_per_question"] == 0.25
    assert side_by_side.setting(retriever, QUESTIONS, 2)["methods"]["b"]["em"]["mean"] == 0


def test_an_impossible_answer_is_none():
    retriever = FixedRetriever(CORPUS, range(6, 0, -1))
    assert side_by_side.unanswerable(retriever, QUESTIONS, 3)["log_probs"]["a"] == [-1.5] * 6
    assert side_by_side.unanswerable(retriever, QUESTIONS, 1)["log_probs"]["b"] == [None] * 6


def test_questions_without_answer_are_about_articles_kept_from_training():
    questions = side_by_side.asked_without_answer()
    trained = {q.gold_passage for q in miniwiki.questions("train")}
    assert len(questions) >= 100
    assert not [q for q in questions if q.answers or q.rival_passage in trained]


def test_memory_is_in_mebibytes(monkeypatch):
    """The system counts in kibibytes."""
    used = SimpleNamespace(ru_maxrss=2048)
    monkeypatch.setattr(side_by_side, "dense", lambda: None)
    monkeypatch.setattr(side_by_side.resource, "getrusage", lambda _: used)
    assert side_by_side.peak("", 1) == 2.0


def test_the_measuring_process_finds_its_module_from_anywhere(monkeypatch, tmp_path):
    run, seen = subprocess.run, []

    def import_only(command, **options):
        seen.append(run([command[0], "-c", "import experiments.side_by_side"], cwd=tmp_path,
                        env=options["env"], check=True))  # fmt: skip
        return SimpleNamespace(stdout="1.5")

    monkeypatch.setattr(side_by_side.subprocess, "run", import_only)
    assert side_by_side.peak_memory([]) == {"libraries": 1.5}
    assert len(seen) == 1
