"""Exact match, F1, has_answer and recall, against values by hand and second computations."""

import math
import unicodedata
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Passage, Question
from ragbook.evaluation import (
    contains,
    exact_match,
    f1,
    has_answer,
    is_hit,
    normalize_answer,
    recall_at_k,
)
from ragbook.retrieval import Retrieved


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("The Eiffel Tower.", "eiffel tower"),
        ("  an  apple,\ta pear\n", "apple pear"),
        ("Theatre another", "theatre another"),  # articles go as words only
        ("U.S.", "us"),
        ("well-known", "wellknown"),
        ("the-end", "theend"),  # punctuation goes before the articles do
        ("«Déjà vu»", "«déjà vu»"),  # only ASCII punctuation goes
        ("The", ""),
    ],
)
def test_normalize_answer(text, normalized):
    assert normalize_answer(text) == normalized


def test_exact_match_takes_any_answer():
    assert exact_match("the  Danube!", ["Rhine", "Danube"])
    assert not exact_match("Danube river", ["Rhine", "Danube"])
    assert not exact_match("", ["Danube"])
    assert not exact_match("Danube", [])
    assert exact_match("a", ["The"])  # both are nothing but an article


@pytest.mark.parametrize(
    ("prediction", "answers", "found"),
    [
        ("It is the Danube.", ["Danube"], True),
        ("It is the Danube.", ["Rhine", "the Danube!"], True),
        ("Danubes", ["Danube"], False),  # whole words
        ("because", ["us"], False),
        ("Black, wide Sea", ["Black Sea"], False),  # in a row
        ("in the Black Sea", ["in a black sea"], True),  # articles are no words
        ("Black Sea", ["the Black Sea coast"], False),  # not the other way round
        ("Danube", ["The"], False),
        ("an", ["The"], True),
        ("", ["Danube"], False),
        ("Danube", [], False),
    ],
)
def test_contains(prediction, answers, found):
    assert contains(prediction, answers) is found


@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Danube", ["the Danube"], 1),
        ("Danube river", ["Danube"], Fraction(2, 3)),  # P 1/2, R 1
        ("the the cat cat", ["cat"], Fraction(2, 3)),  # a word counts as often as it stands
        ("cat cat dog", ["cat cat cat"], Fraction(2, 3)),  # P 2/3, R 2/3
        ("1638", ["1715", "in 1638"], Fraction(2, 3)),  # the best answer counts
        ("Rhine", ["Danube"], 0),
        ("", ["Danube"], 0),
        ("Danube", ["the"], 0),
        ("an", ["the"], 1),
        ("Danube", [], 0),
    ],
)
def test_f1(prediction, answers, expected):
    assert f1(prediction, answers) == pytest.approx(float(expected), abs=1e-15)


words = st.lists(st.sampled_from(["the", "A", "x", "X.", "y", "zed", "?"])).map(" ".join)


@given(words, st.lists(words, min_size=1, max_size=3))
def test_f1_again_by_matching_words_one_by_one(prediction, answers):
    best = 0.0
    for answer in answers:
        left, right = normalize_answer(prediction).split(), normalize_answer(answer).split()
        rest, common = list(right), 0
        for word in left:
            if word in rest:
                rest.remove(word)
                common += 1
        if not left or not right:
            best = max(best, float(left == right))
        elif common:
            precision, recall = common / len(left), common / len(right)
            best = max(best, 2 * precision * recall / (precision + recall))
    assert math.isclose(f1(prediction, answers), best)
    assert exact_match(prediction, answers) <= (f1(prediction, answers) == 1.0)


@given(words, st.lists(words, max_size=3))
def test_contains_again_by_spaces_around_words(prediction, answers):
    """As runs of characters, with a space on both sides of every word."""
    text = f" {normalize_answer(prediction)} "
    wanted = [normalize_answer(answer) for answer in answers]
    expected = any(f" {one} " in text if one else text == "  " for one in wanted)
    assert contains(prediction, answers) is expected
    assert exact_match(prediction, answers) <= contains(prediction, answers)


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        ("It is because of you.", "us", False),  # tokens, not characters
        ("Trains of the US, 1900", "us", True),
        ("Trains of the U.S., 1900", "U.S.", True),
        ("Trains of the U.S., 1900", "US", False),
        ("The Thirty Years' War", "Thirty Years War", False),  # the apostrophe is a token
        ("The Thirty Years' War", "thirty years' war", True),
        ("The Thirty Years' War", "years thirty", False),
        ("Beyonce\u0301 sang", "Beyoncé", True),  # composed and decomposed are one
        ("Beyonce sang", "Beyoncé", False),
        ("a well-known river", "well - known", True),  # spaces do not count
        ("snake_case", "snake", True),  # _ is punctuation
        ("Route 66", "Route\u00a0 66", True),
        ("Route 66", "6", False),
        ("Route 66", " ", False),
        ("", "Route", False),
        ("ΟΔΟΣ 5", "οδος", True),  # a token is lower-cased as a word: its last sigma is ς
        ("京都は都", "都は", False),  # a run of letters is one token
    ],
)
def test_has_answer(text, answer, found):
    assert has_answer(text, [answer]) is found
    assert has_answer(text, ["not there at all", answer]) is found
    assert has_answer(text, []) is False


def tokens_one_by_one(text: str) -> list[str]:
    """DPR's tokens again, by Unicode categories instead of a regular expression."""
    tokens: list[str] = []
    inside = False
    for character in unicodedata.normalize("NFD", text):
        category = unicodedata.category(character)[0]
        if category in "LNM":
            tokens = [*tokens[:-1], tokens[-1] + character] if inside else [*tokens, character]
        elif category not in "ZC":
            tokens.append(character)
        inside = category in "LNM"
    return [token.lower() for token in tokens]


texts = st.text(st.sampled_from("aAbΣÉé\u0301 \t\n._-'\"1²½京\u200b\u00a0🙂"), max_size=12)


@given(texts, texts)
def test_has_answer_again_by_sliding_a_window(text, answer):
    haystack, needle = tokens_one_by_one(text), tokens_one_by_one(answer)
    windows = [haystack[i : i + len(needle)] for i in range(len(haystack) - len(needle) + 1)]
    assert has_answer(text, [answer]) == (bool(needle) and needle in windows)


def retrieved(*passages: Passage) -> Retrieved:
    scores = -np.arange(len(passages), dtype=np.float32)
    return Retrieved(tuple(passage.id for passage in passages), scores, passages)


RHINE = Passage("1", "Rhine", "It rises in the Alps.")
DANUBE = Passage("2", "Danube", "It rises in the Black Forest.")


def test_a_known_gold_passage_is_the_only_hit():
    question = Question("Where does the Rhine rise?", ("the Alps",), gold_passage="2")
    assert not is_hit(question, retrieved(RHINE, DANUBE), 1)
    assert is_hit(question, retrieved(RHINE, DANUBE), 2)


def test_without_one_a_passage_that_holds_an_answer_is_a_hit():
    question = Question("Which river?", ("Black Forest", "Rhine"))
    assert not is_hit(question, retrieved(RHINE, DANUBE), 1)  # the title does not count
    assert is_hit(question, retrieved(RHINE, DANUBE), 2)


def test_recall_at_k():
    questions = [Question("a", ("b",), "1"), Question("a", ("b",), "2"), Question("a", ("Alps",))]
    found = [retrieved(RHINE, DANUBE)] * 3
    assert recall_at_k(questions, found, 1) == pytest.approx(2 / 3)
    assert recall_at_k(questions, found, 2) == 1.0
    with pytest.raises(ValueError, match="shorter"):
        recall_at_k(questions, found[:2], 1)
    with pytest.raises(ValueError, match="without questions"):
        recall_at_k([], [], 1)
