"""Question and passage in one input: neither pushes the other out."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragbook.corpus import Passage
from ragbook.models.answers import detokenize
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.prompts import pair, passage_text, shorten

PASSAGE = Passage("a", "Title", "Some text. " * 200)


def test_a_long_passage_never_cuts_the_question():
    tokenizer = minilm_tokenizer()
    inputs = pair(tokenizer, ["Who was the first of them?"], [PASSAGE], max_input=64)
    ids = inputs.tensors["input_ids"][0].tolist()
    question = tokenizer("Who was the first of them?", add_special_tokens=False)["input_ids"]
    assert ids[1 : 1 + len(question)] == question
    assert len(ids) == 64
    assert inputs.passage_mask[0].sum() == 64 - len(question) - 3


def test_a_long_question_leaves_room_for_the_passage():
    tokenizer = minilm_tokenizer()
    inputs = pair(tokenizer, ["why " * 10_000], [PASSAGE])
    assert inputs.passage_mask[0].sum() > 100
    assert inputs.mask.shape[1] <= 208


@example("\ucf78", 1)
@given(st.text(min_size=1, max_size=80), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_shortened_questions_are_beginnings(question, tokens):
    tokenizer = minilm_tokenizer()
    short = shorten(tokenizer, question, tokens)
    assert question.startswith(short)
    assert len(tokenizer(short, add_special_tokens=False)["input_ids"]) <= tokens


def test_passage_tokens_are_marked_and_lead_back_to_the_text():
    inputs = pair(minilm_tokenizer(), ["Is it?"], [Passage("b", "Rhine", "It is long.")])
    text = passage_text(Passage("b", "Rhine", "It is long."))
    marked = inputs.passage_mask[0].nonzero().flatten().tolist()
    words = [text[slice(*inputs.offsets[0, i].tolist())] for i in marked]
    assert words == ["Rhine", ".", "It", "is", "long", "."]
    assert inputs.texts == [text]


@pytest.mark.parametrize(
    "text", ["bourke-white", "8.13 metres", "1,024", "cobalt-60", "fritz lang", "o'brien", "s. 3"]
)
def test_words_and_numbers_are_closed_up_again(text):
    tokenizer = minilm_tokenizer()
    assert detokenize(tokenizer, tokenizer(text)["input_ids"]) == text


def test_a_question_alone_has_no_passage():
    inputs = pair(minilm_tokenizer(), ["Is it?", "Why is it so?"], [None, None])
    assert not inputs.passage_mask.any()
    assert torch.equal(inputs.mask.sum(1), torch.tensor([5, 7]))


def test_an_answer_is_spelled_as_the_first_passage_that_holds_it():
    tokenizer = minilm_tokenizer()
    passages = [
        Passage("a", "Ships", "No such name."),
        Passage("b", "Sodium", "Jöns Jacob Berzelius of Östergötland chose Na."),
        Passage("c", "Names", "JÖNS JACOB BERZELIUS"),
    ]

    def spelled(text):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        return detokenize(tokenizer, tokens, passages)

    assert spelled("jons jacob berzelius") == "Jöns Jacob Berzelius"
    assert spelled("na") == "Na"
    assert spelled("jacob berzelius of ostergotland") == "Jacob Berzelius of Östergötland"
    assert spelled("berzelius jons") == "berzelius jons"
    assert detokenize(tokenizer, [], passages) == ""
