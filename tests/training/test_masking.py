"""Masked sentences: what is hidden, where else it stands, and what a random mask is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.models.embedded import minilm_tokenizer
from ragbook.training.masking import RANDOM_WORDS, Tokens, masked_sentences, random_spans

CORPUS = Corpus(
    "towns",
    [
        Passage("a", "Velm", "The town of Velm lies on the Ket. It was founded in 1412 by Oda."),
        Passage("b", "Oda", "Oda ruled from 1412. She never saw the Ket."),
        Passage("c", "Kettle", "A kettle of Sorn holds water."),
    ],
)


def test_what_is_hidden_stands_in_another_passage_as_whole_words():
    tokenizer = minilm_tokenizer()
    masked = masked_sentences(tokenizer, CORPUS)
    said = {(m.text, tokenizer.decode(m.answer), m.source, m.holders) for ms in masked for m in ms}
    mask = tokenizer.mask_token
    year = " ".join([mask] * len(tokenizer("1412", add_special_tokens=False)["input_ids"]))
    two = " ".join([mask] * len(tokenizer("Ket", add_special_tokens=False)["input_ids"]))
    oda = " ".join([mask] * len(tokenizer("Oda", add_special_tokens=False)["input_ids"]))
    assert said == {
        # Velm stands nowhere else, Sorn neither; "kettle" does not hold "Ket".
        (f"The town of Velm lies on the {two}.", "ket", 0, (1,)),
        (f"It was founded in {year} by Oda.", "1412", 0, (1,)),
        (f"It was founded in 1412 by {oda}.", "oda", 0, (1,)),
        (f"{oda} ruled from 1412.", "oda", 1, (0,)),
        (f"Oda ruled from {year}.", "1412", 1, (0,)),
        (f"She never saw the {two}.", "ket", 1, (0,)),
    }
    for ms in masked:
        for m in ms:
            assert m.text.count(mask) == len(m.answer)


def test_a_title_holds_its_name_too():
    tokens = Tokens(minilm_tokenizer(), list(CORPUS))
    ids = minilm_tokenizer()("Oda", add_special_tokens=False)["input_ids"]
    assert tokens.holders(ids) == (0, 1)


def test_random_masks_repeat_with_their_seed():
    tokenizer = minilm_tokenizer()
    towns = [
        Passage(str(i), "", f"The old town of Velm lies on the {name}, says {name}.")
        for i, name in enumerate(("Ket", "Sorn", "Oda"))
    ]
    some = Corpus("towns", towns)
    one, again, other = (masked_sentences(tokenizer, some, "random", s) for s in (0, 0, 5))
    assert one == again != other
    assert all(m.holders and m.source not in m.holders for ms in one for m in ms)


@given(st.text(alphabet="ab ,.é'", max_size=50), st.integers(1, 4), st.integers(0, 9))
def test_random_spans_are_runs_of_words(sentence, count, seed):
    spans = random_spans(sentence, count, random.Random(seed))
    assert len(spans) <= count
    for first, last in spans:
        piece = sentence[first:last]
        assert piece == piece.strip()
        assert 1 <= len(piece.split()) <= RANDOM_WORDS


def test_a_corpus_without_repeated_names_is_refused():
    with pytest.raises(InputError, match="nothing to pre-train on"):
        masked_sentences(minilm_tokenizer(), Corpus("one", [CORPUS[0]]))
