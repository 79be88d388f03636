"""Reading with the gold passage in hand: what is shown is what belongs to each question."""

import torch

from ragbook.evaluation.compare import compare
from ragbook.evaluation.reading import by_kind, invented
from ragbook.methods.base import Answer, Evidence

WORDS = ["castle", "river", "amber", "lantern"]


class Finder:
    """Answers with the true answer where a passage it is shown holds it."""

    name, parameters, verbatim = "finder", 1, None

    def __init__(self, retriever):
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


def test_scores_by_kind():
    questions, shown = invented(1, WORDS, 6)
    comparison = compare([Finder(shown)], questions, k=1, progress=False)
    assert by_kind(comparison, questions) == {"plain (n = 6)": {"finder": 1.0}}
