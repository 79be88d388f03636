"""Names and dates found by rules, sentences cut, on hand-made texts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus.salient import SalientSpans, sentences


def found(sentence: str, *texts: str) -> list[str]:
    tagger = SalientSpans([sentence, *texts])
    return [sentence[first:last] for first, last in tagger(sentence)]


def test_sentences_end_at_full_stops_but_not_after_initials():
    text = "J. R. Smith met Dr. Ames in St. Louis. It rained! Was it 4.5 km? Yes."
    cut = [text[first:last] for first, last in sentences(text)]
    assert cut == ["J. R. Smith met Dr. Ames in St. Louis.", "It rained!", "Was it 4.5 km?", "Yes."]
    assert sentences("") == []
    assert sentences("  no stop ") == [(2, 9)]


@given(st.text(alphabet="aB. !?1\n", max_size=60))
def test_sentences_lie_in_order_and_leave_out_only_spaces(text):
    spans = sentences(text)
    assert all(a < b for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    assert "".join("".join(text[a:b] for a, b in spans).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("sentence", "spans"),
    [
        ("He died on 11 February 1948 in Moscow.", ["11 February 1948", "Moscow"]),
        ("On July 4, 1776 and in May 1945 it rang.", ["July 4, 1776", "May 1945"]),
        ("It fell in 335 BC, not in AD 70.", ["335 BC", "AD 70"]),
        ("Through the 1920s and the 19th century it grew.", ["1920s", "19th century"]),
        ("He weighed 1066 kilos.", ["1066"]),  # the rule for years cannot know
        ("A run of 12 or 3000 steps.", []),
        ("Then Charles de Gaulle met Leopold III of Belgium.",
         ["Charles de Gaulle", "Leopold III of Belgium"]),
        ("Now in May the bells of Saint Mary ring.", ["Saint Mary"]),
        ("On Sunday we went to Vienna’s Prater.", ["Vienna’s Prater"]),
        ("It was Ötzi’s axe.", ["Ötzi"]),
    ],
)  # fmt: skip
def test_names_and_dates(sentence, spans):
    assert found(sentence, "then now on it through he we a in the was") == spans


def test_a_word_that_begins_a_sentence_is_a_name_unless_it_is_written_small_somewhere():
    assert found("Rivers meet here.") == ["Rivers"]
    assert found("Rivers meet here.", "two rivers") == []
    assert found("The Rhine is long.", "the sea") == ["Rhine"]
    assert found("Rhine and Meuse meet.", "two rivers") == ["Rhine and Meuse"]


@given(st.text(max_size=80))
def test_spans_never_overlap(text):
    spans = SalientSpans([text])(text)
    assert all(0 <= a < b <= len(text) for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
