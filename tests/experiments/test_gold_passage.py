"""Reading with the gold passage in hand: what is shown is what belongs to each question."""

from dataclasses import replace

import pytest
import torch
from experiments.gold_passage import asked_for, exact_match_by, invented

from ragbook.corpus import Question
from ragbook.evaluation.compare import compare
from ragbook.methods.base import Answer, Evidence

WORDS = ["castle", "river", "amber", "lantern"]


class Finder:
    """Answers with the true answer where a passage it is shown holds it."""

    parameters, verbatim = 1, None

    def __init__(self, retriever):
        self.name = type(self).__name__.lower()
        self.retriever = retriever

    def answer(self, questions, k=5):
        out = []
        for question, found in zip(questions, self.retriever.retrieve(questions, k), strict=True):
            (true,) = question.answers
            held = [
                p_id for p_id, p in zip(found.ids, found.passages, strict=True) if true in p.text
            ]
            evidence = tuple(Evidence(p_id, 1 / len(held)) for p_id in held)
            out.append(Answer(question.text, true if held else "", -1.0, evidence, 0.0))
        return out

    def log_prob(self, questions, answers, k=5):
        return torch.full((len(questions),), -1.0)


def test_every_invented_question_is_shown_its_own_world():
    for n in (1, 4):
        questions, shown = invented(n, WORDS, 20)
        found = shown.retrieve(list(questions), n)
        assert [len(f.passages) for f in found] == [n] * 20
        scores = compare([Finder(shown)], questions, k=n, progress=False).results["methods"][
            "finder"
        ]
        assert scores["em"] == 1
        assert scores["evidence_accuracy"] == 1
        assert scores["recall_at_k"] == 1


def test_invented_questions_are_the_same_on_every_machine():
    assert list(invented(2, WORDS, 5)[0]) == list(invented(2, WORDS, 5)[0])


class Guesser(Finder):
    """Knows the answers to the first question only."""

    def answer(self, questions, k=5):
        answers = super().answer(questions, k)
        return [answers[0], *(replace(answer, text="no") for answer in answers[1:])]


def test_scores_by_sort():
    questions, shown = invented(1, WORDS, 6)
    comparison = compare([Guesser(shown)], questions, k=1, progress=False)

    def sort(question):
        return "first" if question == questions[0] else "rest"

    assert exact_match_by(sort, comparison, questions) == {
        "first (n = 1)": {"guesser": 1.0},
        "rest (n = 5)": {"guesser": 0.0},
    }


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        ("Who built the tower?", "who"),
        ("In which year, and how, did it fall?", "which"),
        ("How many arches has it?", "how many"),
        ("Whose tower is it?", "whose"),
        ("tower built year", "other"),
        ("However was it somehow built?", "other"),
    ],
)
def test_what_a_question_asks_with(text, sort):
    assert asked_for(Question(text, ("x",))) == sort
