"""The example question: the first that fits the rule, whatever stands before it."""

import pytest
from experiments import examples
from experiments.examples import example

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
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


def test_without_one_it_says_what_is_missing():
    with pytest.raises(InputError, match="give more questions"):
        example(RETRIEVER, QUESTIONS, words, k=3, least=4)
