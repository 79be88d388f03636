"""Masked sentences: what is hidden, where else it stands, and what a random mask is."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.models.embedded import minilm_tokenizer
from ragbook.training.realm.masking import RANDOM_WORDS, Tokens, masked_sentences, random_spans

CORPUS = Corpus(
    "towns",
    [
        Passage("a", "Velm", "The town of Velm lies on the Ket. It was founded in 1412 by Oda."),
        Passage("b", "Oda", "Oda ruled from 1412. She never saw the Ket."),
        Passage("c", "Kettle", "A kettle of Sorn holds water, says Oda. It is of 1412."),
        Passage("d", "Velm", "A bridge in the Ket was built in 1509; it fell."),
    ],
)


def masks(text: str) -> str:
    tokenizer = minilm_tokenizer()
    pieces = tokenizer(text, add_special_tokens=False)["input_ids"]
    return " ".join([tokenizer.mask_token] * len(pieces))


def test_what_is_hidden_can_be_told_by_another_passage():
    tokenizer = minilm_tokenizer()
    masked = masked_sentences(tokenizer, CORPUS)
    said = {(m.text, tokenizer.decode(m.answer), m.source, m.holders) for ms in masked for m in ms}
    assert said == {
        # The Ket is in b and d too, but only d is of this article; "Velm" is in the title.
        (f"Velm. The town of Velm lies on the {masks('Ket')}.", "ket", 0, (3,)),
        # 1412 is in b and c with Oda. Oda is in b and c, but no other name links them: not hidden.
        (f"Velm. It was founded in {masks('1412')} by Oda.", "1412", 0, (1, 2)),
        (f"Oda. Oda ruled from {masks('1412')}.", "1412", 1, (0, 2)),
        # The other sentence of the article that names the Ket.
        (f"Velm. A bridge in the {masks('Ket')} was built in 1509; it fell.", "ket", 3, (0,)),
    }
    for ms in masked:
        for m in ms:
            assert m.text.count(tokenizer.mask_token) == len(m.answer)


def test_words_are_found_whole():
    tokens = Tokens(minilm_tokenizer(), list(CORPUS))
    assert tokens.holders(tokens.of("Ket")) == (0, 1, 3)  # and not in "kettle"
    assert tokens.holders(tokens.of("Oda")) == (0, 1, 2)
    assert tokens.holders(()) == ()


def test_random_masks_repeat_with_their_seed():
    tokenizer = minilm_tokenizer()
    towns = [
        Passage(str(i), "Velm", f"The old town of Velm lies on the {name}, says {name}.")
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
        assert 1 <= sum(bool(word.strip(",.'")) for word in piece.split()) <= RANDOM_WORDS


def test_a_corpus_without_repeated_names_is_refused():
    with pytest.raises(InputError, match="nothing to pre-train on"):
        masked_sentences(minilm_tokenizer(), Corpus("one", [CORPUS[0]]))
