"""Invented worlds: what they promise to the reader that learns from them."""

import random

import pytest
from hypothesis import example as example_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.training.reader.worlds import KINDS, Names, example


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 5))
@example_of(seed=113807, n=1, facts=4)  # the answer opens the second half of a sentence
@example_of(seed=23487, n=1, facts=1)  # "tre", and a stream is asked about
@settings(max_examples=200, deadline=None)
def test_the_answer_stands_in_one_passage_once(seed, n, facts):
    drawn = example(random.Random(seed), n, (1, facts))
    (answer,) = drawn.question.answers
    assert len(drawn.passages) == n
    assert drawn.gold is not None
    assert drawn.passages[drawn.gold].id == drawn.question.gold_passage
    everywhere = " ".join(f"{p.title} {p.text}" for p in drawn.passages).lower()
    assert everywhere.count(answer.lower()) == 1
    assert answer in drawn.passages[drawn.gold].text
    assert answer.lower() not in drawn.question.text.lower()
    assert "{" not in drawn.question.text + everywhere


@given(st.integers(0, 10**6), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_an_unanswerable_question_has_no_answer_in_what_is_shown(seed, n):
    drawn = example(random.Random(seed), n, unanswerable=1.0)
    assert drawn.gold is None
    assert len(drawn.passages) == n
    shown = " ".join(f"{p.title} {p.text}" for p in drawn.passages).lower()
    assert drawn.question.answers[0].lower() not in shown


def test_a_seed_is_a_world():
    first, second = (
        [example(random.Random(f"7-{i}"), 3, unanswerable=0.3) for i in range(20)] for _ in range(2)
    )
    assert first == second
    assert len({e.question.text for e in first}) > 15


def test_names_are_new_each_time():
    """The last 500 answers of a long run were hardly ever seen in the 2,000 before them."""
    rng = random.Random(1)
    answers = [example(rng).question.answers[0] for _ in range(2500)]
    names = [a for a in answers[2000:] if a[0].isupper() and " " in a]
    assert len(names) > 100
    assert sum(name in set(answers[:2000]) for name in names) / len(names) < 0.05


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_wording_has_its_places(kind):
    table = KINDS[kind]
    assert hasattr(Names, table.name)
    for relation in table.relations:
        assert hasattr(Names, relation.value)
        assert len(relation.told) >= 3
        assert len(relation.asked) >= 2
        for wording in relation.told:
            assert wording.count("{s}") == 1
            assert wording.count("{a}") == 1
        for wording in relation.asked:
            assert wording.count("{s}") == 1
            assert wording.endswith("?")


def test_passages_are_at_least_one():
    with pytest.raises(ValueError, match="at least 1"):
        example(random.Random(0), 0)
