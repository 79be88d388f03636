"""Cutting texts: every word is kept, in order; pieces are as long as asked for and overlap so."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Passage
from ragbook.corpus.splitting import (
    DEFAULT_SPLIT,
    Heading,
    Split,
    cut_passage,
    parse_split,
    pieces,
    section_title,
)
from ragbook.errors import InputError

TEXTS = st.text("ab.A! \n\t\u2028e", max_size=120)
SIZES = st.integers(1, 7)


def overlaps(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, size - 1)


@pytest.mark.parametrize(
    ("text", "overlap", "expected"),
    [
        ("words:100", 0, DEFAULT_SPLIT),
        ("words", 99, Split("words", 100, 99)),
        ("sentences", 2, Split("sentences", 100, 2)),
        ("sentences:7", 6, Split("sentences", 7, 6)),
        ("headings", 0, Split("headings", 100)),
        ("headings:1", 0, Split("headings", 1)),
        ("none", 0, Split("none", 0)),
    ],
)
def test_ways_of_cutting(text, overlap, expected):
    assert parse_split(text, overlap) == expected


@pytest.mark.parametrize(
    ("text", "overlap", "said"),
    [
        ("", 0, "cannot be cut by ''"),
        ("lines:3", 0, "cannot be cut by 'lines:3'"),
        ("none:3", 0, "cannot be cut by 'none:3'"),
        ("Words", 0, "words:N, sentences:N"),
        ("words:", 0, "whole number"),
        ("words:0", 0, "from 1 to"),
        ("words:-3", 0, "whole number"),
        ("words:1.5", 0, "whole number"),
        ("words: 5", 0, "whole number"),
        ("words:٣", 0, "whole number"),
        ("words:" + "9" * 5_000, 0, "whole number"),
        ("words:10", 10, "An overlap of 10 is not smaller than the 10 words"),
        ("sentences", 100, "not smaller"),
        ("words:10", -1, "less than 0"),
        ("none", 1, "have no overlap"),
    ],
)
def test_other_ways_are_refused_in_a_sentence(text, overlap, said):
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        parse_split(text, overlap)
    assert "\n" not in str(caught.value)


@given(TEXTS, SIZES, st.data())
def test_pieces_of_words(text, size, data):
    overlap = data.draw(overlaps(size))
    found = [piece.text.split() for piece in pieces(text, Split("words", size, overlap))]
    words = text.split()
    joined = [word for n, piece in enumerate(found) for word in piece[overlap if n else 0 :]]
    assert joined == words
    for before, piece in pairwise(found):
        assert len(before) == size
        assert piece[:overlap] == before[size - overlap :]
        assert overlap < len(piece) <= size  # a piece of nothing new would be one too many


@given(TEXTS, st.sampled_from(["words", "sentences", "headings"]), SIZES, st.data())
def test_a_piece_begins_where_it_says(text, by, size, data):
    split = Split(by, size, data.draw(overlaps(size)))
    for piece in pieces(text, split):
        there = text[piece.start :].split()
        assert piece.text.split() == there[: len(piece.text.split())]
        assert not text[piece.start].isspace()


def ends_of_sentences(text: str) -> list[int]:
    """How many words stand before the end of each sentence: the letters here make no abbreviation
    but initials."""
    words, ends = text.split(), []
    between = re.findall(r"\s+", text.strip())
    for number, word in enumerate(words):
        last = number + 1 == len(words)
        blank = not last and between[number].count("\n") > 1
        full = word[-1] in ".!" and word not in ("A.", "a.", "b.", "e.")
        if last or blank or (full and not words[number + 1][0].islower()):
            ends.append(number + 1)
    return ends


@given(TEXTS, SIZES)
def test_no_sentence_that_fits_is_cut(text, size):
    found = [piece.text.split() for piece in pieces(text, Split("sentences", size))]
    assert [word for piece in found for word in piece] == text.split()
    if len(text.split()) <= size:
        return
    at, bounds = 0, set()
    for piece in found:
        assert len(piece) <= size
        bounds.add(at)
        at += len(piece)
    first = 0
    for end in ends_of_sentences(text):
        if end - first <= size:
            assert not bounds & set(range(first + 1, end))
        else:  # cut by words, each part as long as can be
            assert bounds >= {*range(first + size, end, size)}
        first = end


@given(TEXTS, SIZES, st.data())
def test_sentences_are_repeated_and_all_is_there(text, size, data):
    plain = Split("sentences", size)
    found = pieces(text, Split("sentences", size, data.draw(overlaps(size))))
    starts = [piece.start for piece in found]
    assert starts == sorted(set(starts))
    covered = set()
    for piece in found:
        assert len(piece.text.split()) <= size
        inside = [m.start() for m in re.finditer(r"\S+", text) if m.start() >= piece.start]
        covered |= set(inside[: len(piece.text.split())])
    assert covered == {m.start() for m in re.finditer(r"\S+", text)}
    assert len(found) >= len(pieces(text, plain))


def test_sentences_end_where_a_reader_would_end_them():
    text = (
        'Dr. Smith met J. R. Jones at St. Mary\'s, i.e. in town. He left. "Why?" she asked. '
        "Version 3.5 came (in May). It was late… 7 people saw e.g. Fig. 3 of it!\n\n"
        "A new paragraph"
    )
    found = [piece.text for piece in pieces(text, Split("sentences", 12))]
    assert found == [
        "Dr. Smith met J. R. Jones at St. Mary's, i.e. in town.",
        'He left. "Why?" she asked. Version 3.5 came (in May).',
        "It was late… 7 people saw e.g. Fig. 3 of it!",
        "A new paragraph",
    ]
    repeated = [piece.text for piece in pieces(text, Split("sentences", 15, 1))]
    assert repeated[1] == 'He left. "Why?" she asked. Version 3.5 came (in May). It was late…'
    assert repeated[2].startswith("It was late… 7 people")


def test_sections_under_their_headings():
    text = "Intro.\n# Guide\nHello.\n## Install\n### Linux\nRun this now.\n## Empty\n## Use\nAll."
    passage = Passage("g", "Guide", text)
    found = cut_passage(passage, Split("headings", 2))
    assert [(p.id, p.title, p.text) for p in found] == [
        ("g-1", "Guide", "Intro."),
        ("g-2", "Guide", "Hello."),
        ("g-3", "Guide: Install: Linux", "Run this"),
        ("g-4", "Guide: Install: Linux", "now."),
        ("g-5", "Guide: Empty", "## Empty"),
        ("g-6", "Guide: Use", "All."),
    ]
    assert section_title("", ("A", "B")) == "A: B"
    assert section_title("T", ("A", "T")) == "T: A: T"


def test_a_heading_in_a_code_fence_is_none():
    text = "# A #\nText.\n```sh\n# not one\nrun\n```\n# C#\nMore.\n#no\n####### no"
    found = pieces(text, Split("headings", 99), [])
    assert len(found) == 1  # without headings there is one section
    cut = cut_passage(Passage("p", "", text), Split("headings", 99))
    assert [p.title for p in cut] == ["A", "C#"]
    assert cut[0].text == "Text.\n```sh\n# not one\nrun\n```"


def test_headings_of_another_kind_can_be_given():
    text = "One\nfirst text\nTwo\nsecond text"
    at = text.index("Two")
    headings = [Heading(0, 3, 1, "One"), Heading(at, at + 3, 2, "Two")]
    found = pieces(text, Split("headings", 5), headings)
    assert [(p.text, p.headings) for p in found] == [
        ("first text", ("One",)),
        ("second text", ("One", "Two")),
    ]
    assert [p.text for p in pieces(text, Split("none", 0), headings)] == [text]


def test_a_passage_that_is_short_enough_is_not_changed():
    passage = Passage("a", "T", "  two\n words ")
    for by in ("words:2", "sentences:2", "headings:2", "none"):
        assert cut_passage(passage, parse_split(by)) == [passage]
    assert [p.text for p in cut_passage(passage, parse_split("words:1"))] == ["two", "words"]
    assert [p.id for p in cut_passage(passage, parse_split("words:1"))] == ["a-1", "a-2"]
    assert cut_passage(Passage("a", "", " "), DEFAULT_SPLIT) == [Passage("a", "", " ")]


@pytest.mark.parametrize("way", ["words", "sentences", "headings", "none"])
@pytest.mark.parametrize(
    "text",
    ["a. B! " * 300_000, "x" * 2_000_000, "# " * 500_000 + "x", "\n" * 10**6, "# a\n" * 10**5],
)
def test_long_texts_take_no_long_time(way, text):
    """A time that grew with the square of the length would be hours."""
    began = time.process_time()
    cut_passage(Passage("a", "", text), parse_split(way))
    assert time.process_time() - began < 30
