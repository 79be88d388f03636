"""What is wrong with an answer: every kind by hand, and what holds for all answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Passage, Question
from ragbook.evaluation import exact_match, normalize_answer
from ragbook.evaluation.errors import LABELS, MEANINGS, NAMES, counts, error_kind

DIAMOND = Passage("d", "Koh-i-Noor", "The stone weighs 105.6 carats; Ranjit Singh wore it.")
TOWER = Passage("t", "Tower of London", "The Thirty Years' War spared it. Poland's envoys came.")
RIVER = Passage("r", "Rhine", "It flows past Bonn to the North Sea.")
QUESTION = Question("Which stone?", ("Koh-i-Noor", "the Mountain of Light"), "d")
ALL = [RIVER, DIAMOND, TOWER]


@pytest.mark.parametrize(
    ("prediction", "kind"),
    [
        ("the koh-i-noor.", "exact"),
        ("", "empty"),
        ("The ...", "empty"),
        ("Koh-i", "cut"),  # joined by normalising: a beginning without spaces
        ("Koh", "cut"),
        ("Mountain of", "cut"),
        ("of Light", "cut"),  # a run, though no beginning
        ("Noor", "same-passage"),  # the end of a word is no run of words
        ("Koh i Noor", "not-in-passages"),  # nothing is missing
        ("Koh-i-Noor diamond", "long"),
        ("it is the Mountain of Light", "long"),
        ("Ranjit Singh", "same-passage"),
        ("105.6", "same-passage"),
        ("Thirty Years War", "other-passage"),  # whole words when normalised
        ("Poland", "other-passage"),  # a token, though normalising makes it "polands"
        ("Rhine", "other-passage"),  # in a title
        ("Ranjit", "same-passage"),
        ("Ranjit Rhine", "not-in-passages"),
        ("Elbe", "not-in-passages"),
    ],
)
def test_the_first_kind_that_fits(prediction, kind):
    assert error_kind(prediction, QUESTION, ALL) == kind


@pytest.mark.parametrize(
    ("prediction", "kind"),
    [
        ("Koh-i-Noor", "exact"),
        ("Koh", "cut"),
        ("Koh-i-Noor stone", "long"),
        ("Rhine", "not-retrieved"),
        ("Elbe", "not-retrieved"),
    ],
)
def test_without_the_gold_passage_no_other_answer_could_be_right(prediction, kind):
    assert error_kind(prediction, QUESTION, [RIVER, TOWER]) == kind


def test_where_no_gold_passage_is_known_those_that_hold_an_answer_stand_for_it():
    question = Question("Who wore the stone?", ("Ranjit Singh",))
    assert error_kind("carats", question, ALL) == "same-passage"
    assert error_kind("Bonn", question, ALL) == "other-passage"
    assert error_kind("Bonn", question, [RIVER, TOWER]) == "not-retrieved"
    titled = Question("Which stone?", ("Koh-i-Noor",))  # in a title only, which does not answer
    assert error_kind("Bonn", titled, ALL) == "not-retrieved"


@pytest.mark.parametrize(
    ("prediction", "kind"),
    [("Koh-i-Noor", "exact"), ("a", "empty"), ("Koh", "cut"), ("Koh-i-Noor x", "long"),
     ("Rhine", "not-in-passages")],
)  # fmt: skip
def test_a_method_without_passages_has_five_kinds(prediction, kind):
    assert error_kind(prediction, QUESTION, None) == kind


def test_an_empty_gold_answer_is_in_no_long_answer():
    assert error_kind("Bonn", Question("?", ("the",), "r"), ALL) == "same-passage"
    assert error_kind("an", Question("?", ("the",), "r"), ALL) == "exact"


WORDS = st.lists(st.sampled_from(["the", "Koh-i", "noor", "x", "Rhine", "Bonn", "."]), max_size=4)
TEXTS = WORDS.map(" ".join)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_every_answer_has_one_kind_and_what_it_says_is_true(prediction, answers, known, read):
    question = Question("?", tuple(answers), "d" if known else None)
    kind = error_kind(prediction, question, ALL if read else None)
    text, gold = normalize_answer(prediction), [normalize_answer(one) for one in answers]
    assert (kind == "exact") == exact_match(prediction, answers)
    assert (kind == "empty") == (not text and "" not in gold)
    if kind == "cut":
        joined = text.replace(" ", "")
        assert any(
            len(joined) < len(whole.replace(" ", ""))
            and (f" {text} " in f" {whole} " or whole.replace(" ", "").startswith(joined))
            for whole in gold
        )
    if kind == "long":
        assert any(one and one in text and len(one) < len(text) for one in gold)
    if not read:
        assert kind in ("exact", "empty", "cut", "long", "not-in-passages")


def test_counts_name_every_kind():
    found = counts(["cut", "exact", "cut"])
    assert list(found) == list(NAMES) == list(MEANINGS) == list(LABELS)
    assert (found.pop("cut"), found.pop("exact"), set(found.values())) == (2, 1, {0})
    with pytest.raises(KeyError):
        counts(["wrong"])
