"""What the methods make of further passages, with made-up ones: counts worked out by hand."""

import pytest
from experiments import order

from ragbook.corpus import Corpus, Passage, Question
from ragbook.methods.base import Answer
from tests.fakes import FixedRetriever

CORPUS = Corpus(
    "words",
    [
        Passage(str(i), f"Title {i}", " ".join(f"word{i}x{at}" for at in range(80)))
        for i in range(6)
    ],
)
QUESTIONS = [Question(f"What is {i}?", (f"word{i}x{30 + 40 * (i % 2)}",), str(i)) for i in range(6)]


class Last:
    """Says the word that its question asks for if it stands in the last passage it is shown, else
    that passage's first word."""

    def __init__(self, name, retriever):
        self.name, self.retriever = name, retriever

    def answer(self, questions, k=5):
        out = []
        for question, found in zip(questions, self.retriever.retrieve(questions, k), strict=True):
            words = found.passages[-1].text.split()
            said = question.answers[0] if question.answers[0] in words else words[0]
            out.append(Answer(question.text, said, -1.0, (), 0.0))
        return out


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    def load(names, retriever, verbatim, reader, shared):
        assert verbatim
        assert shared
        assert reader == "mine"
        return [Last(name, retriever) for name in order.METHODS]

    monkeypatch.setattr(order, "load", load)
    monkeypatch.setattr(order, "KS", (1, 2, 6))


def test_exact_match_and_errors_by_k():
    out = order.by_k("mine", FixedRetriever(CORPUS, range(6, 0, -1)), QUESTIONS)
    # The k-th passage is the last one shown, and one question asks for each.
    assert all(out[k]["em"]["fid"]["mean"] == pytest.approx(1 / 6) for k in ("1", "2", "6"))
    assert [out[k]["recall"]["mean"] for k in ("1", "2", "6")] == pytest.approx([1 / 6, 1 / 3, 1])
    assert out["1"]["fid's errors"]["not-retrieved"] == 5
    two = out["2"]["fid's errors"]
    assert (two["exact"], two["other-passage"], two["not-retrieved"]) == (1, 1, 4)
    assert out["6"]["fid's errors"]["other-passage"] == 5


def test_the_gold_passage_alone_and_with_others():
    out = order.others("mine", CORPUS, FixedRetriever(CORPUS, range(6, 0, -1)), QUESTIONS)
    assert out["gold alone"]["realm"]["mean"] == 1
    assert out["nearest"]["realm"]["mean"] == 0  # the last one is never the gold one
    assert out["random"]["realm"]["mean"] == 0


def test_passages_are_cut_after_so_many_words():
    retriever = FixedRetriever(CORPUS, [1, 0, 0, 0, 0, 0])
    out = order.short("mine", CORPUS, retriever, QUESTIONS)
    assert (out["n"], out["words"]) == (3, 60)  # the others are answered after the 60th word
    shown = order._Short(retriever).retrieve(QUESTIONS[:1], 2)[0]
    assert [len(p.text.split()) for p in shown.passages] == [60, 60]
    assert shown.passages[0].text == " ".join(CORPUS[0].text.split()[:60])
    assert out["short"].keys() == out["whole"].keys() == set(order.METHODS)
