"""Passages drawn by lot: different ones, the same for a question every time, none favoured."""

from collections import Counter

import pytest

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.retrieval import RandomRetriever
from tests.fakes import animals

CORPUS = animals(7)
QUESTIONS = [Question(f"Who ate fish number {i}?", ()) for i in range(700)]


def test_a_question_draws_the_same_passages_alone_and_in_a_batch():
    retriever = RandomRetriever(CORPUS)
    together = [found.ids for found in retriever.retrieve(QUESTIONS[:20], 3)]
    alone = [retriever.retrieve([question], 3)[0].ids for question in QUESTIONS[:20]]
    assert together == alone
    assert len(set(together)) > 10
    assert [f.ids for f in RandomRetriever(CORPUS, seed=1).retrieve(QUESTIONS[:20], 3)] != alone


def test_passages_are_different_and_all_of_a_small_corpus():
    (found,) = RandomRetriever(CORPUS).retrieve(QUESTIONS[:1], 50)
    assert sorted(found.ids) == sorted(passage.id for passage in CORPUS)
    assert [p.id for p in found.passages] == list(found.ids)
    assert not found.scores.any()


def test_no_passage_is_favoured():
    """Each of 7 passages is expected 100 times in 700 draws; 5 deviations are 46 either way."""
    drawn = Counter(f.ids[0] for f in RandomRetriever(CORPUS).retrieve(QUESTIONS, 1))
    assert len(drawn) == 7
    assert all(abs(count - 100) < 46 for count in drawn.values())


def test_k_must_be_positive():
    with pytest.raises(InputError, match="k must be 1 or more"):
        RandomRetriever(CORPUS).retrieve(QUESTIONS[:1], 0)
