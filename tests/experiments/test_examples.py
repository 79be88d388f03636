"""The example question: the first that fits the rule, whatever stands before it."""

import pytest
import torch
from experiments import examples
from experiments.examples import example, told_twice

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.methods import Answer
from tests.fakes import FixedRetriever

CORPUS = Corpus("four", [Passage(letter, letter, "Words.") for letter in "abcd"])
RETRIEVER = FixedRetriever(CORPUS, range(4, 0, -1))
QUESTIONS = [
    Question("Is it the first?", ("one two three",), "a"),
    Question("Is it far down?", ("one two three",), "d"),
    Question("Is it short?", ("one",), "b"),
    Question("Is its passage unknown?", ("one two three",)),
    Question("Does it fit?", ("one two three", "one"), "c"),
    Question("Does it fit too?", ("one two three",), "b"),
]


def words(text, add_special_tokens):
    assert not add_special_tokens
    return {"input_ids": text.split()}


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"k": 3}, "Does it fit?"),
        ({"k": 4}, "Is it far down?"),
        ({"k": 3, "least": 1}, "Is it short?"),
    ],
)
@pytest.mark.parametrize("batch", [2, 64])
def test_it_is_retrieved_but_not_first_and_its_answer_is_long(how, text, batch, monkeypatch):
    monkeypatch.setattr(examples, "BATCH", batch)
    assert example(RETRIEVER, QUESTIONS, words, **how).text == text


class Knows:
    """Answers one of the questions rightly, and must be asked with so many passages."""

    name, parameters, retriever = "knows", 0, None

    def __init__(self, text, k=1, sure=True):
        self.text, self.k, self.sure = text, k, sure

    def answer(self, questions, k=5):
        assert k == self.k
        said = [q.answers[0] if q.text == self.text else "nothing" for q in questions]
        return [Answer(q.text, a, 0.0, (), 0.0) for q, a in zip(questions, said, strict=True)]

    def log_prob(self, questions, answers, k=5):
        """Of an answer that it would give: more than that of any other, if it is sure."""
        own = [answer.text for answer in self.answer(questions, k)]
        same = [a == b for a, b in zip(own, answers, strict=True)]
        return torch.tensor([-1.0 if is_own == self.sure else -2.0 for is_own in same])


def test_it_can_be_read_from_its_passage():
    found = example(RETRIEVER, QUESTIONS, words, Knows("Does it fit too?"), k=3)
    assert found.text == "Does it fit too?"
    with pytest.raises(InputError, match="can be read"):
        example(RETRIEVER, QUESTIONS, words, Knows("Is it far down?"), k=3)


def test_one_of_two_methods_finds_it_and_the_other_does_not():
    one, other = Knows("Does it fit?", 3), Knows("Does it fit too?", 3)
    nobody, both = Knows("", 3), [Knows("Does it fit?", 3)] * 2
    for apart in ([one, nobody], [nobody, one], [one, other]):
        assert example(RETRIEVER, QUESTIONS, words, k=3, apart=apart).text == "Does it fit?"
    assert example(RETRIEVER, QUESTIONS, words, k=3, apart=[other, nobody]).text == other.text
    unsure = Knows("", 3, sure=False)  # what another method says is more probable
    doubts = Knows("Does it fit?", 3, sure=False)
    for apart in (both, [nobody, nobody], [one, unsure], [doubts, nobody]):
        with pytest.raises(InputError, match="that some methods find and some do not"):
            example(RETRIEVER, QUESTIONS, words, k=3, apart=apart)


def test_without_one_it_says_what_is_missing():
    with pytest.raises(InputError, match="give more questions"):
        example(RETRIEVER, QUESTIONS, words, k=3, least=4)


@pytest.mark.parametrize(
    ("telling", "k", "text"),
    [
        ({"a", "b"}, 4, "Is it the first?"),
        ({"c", "d"}, 4, "Is it the first?"),  # the gold passage need not be one of the two
        ({"a", "b"}, 1, None),
        ({"a"}, 4, None),
    ],
)
def test_two_passages_tell_the_answer(telling, k, text):
    def tells(question, found, z):
        assert question.gold_passage in found.ids
        return found.ids[z] in telling

    if text is None:
        with pytest.raises(InputError, match="no question has two passages"):
            told_twice(RETRIEVER, QUESTIONS, tells, k)
    else:
        question, found = told_twice(RETRIEVER, QUESTIONS, tells, k)
        assert question.text == text
        assert len(found.ids) == k


def test_its_gold_passage_is_retrieved():
    question, _ = told_twice(RETRIEVER, QUESTIONS[1:], lambda *_: True, 3)
    assert question.text == "Is it short?"
