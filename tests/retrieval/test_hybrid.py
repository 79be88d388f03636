"""Reciprocal rank fusion against the formula worked out by hand, and on MiniWiki's shape."""

import numpy as np
import pytest

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.retrieval import BM25Retriever, HybridRetriever
from tests.fakes import FixedRetriever

CORPUS = Corpus("letters", [Passage(i, i.upper(), f"The letter {i}.") for i in "abcdef"])


def fixed(ids: str, best: float = 9.0) -> FixedRetriever:
    """These passages in this order; the scores must play no part."""
    return FixedRetriever([CORPUS.get(i) for i in ids], np.linspace(best, 0, len(ids)))


QUESTION = [Question("?", ("x",))]


def test_scores_are_the_sum_of_reciprocal_ranks():
    first, second = fixed("abc", 1.0), fixed("cbd", 1000.0)
    (found,) = HybridRetriever(first, second).retrieve(QUESTION, 4)
    # c: 3rd and 1st, b: 2nd twice, a: 1st, d: 3rd.
    expected = {"c": 1 / 63 + 1 / 61, "b": 2 / 62, "a": 1 / 61, "d": 1 / 63}
    assert found.ids == ("c", "b", "a", "d")
    np.testing.assert_allclose(found.scores, [expected[i] for i in found.ids], rtol=1e-6)
    assert found.scores.dtype == np.float32
    assert found.passages == tuple(CORPUS.get(i) for i in found.ids)


def test_a_passage_that_both_have_low_beats_one_that_one_has_high():
    both = fixed("abf"), fixed("cdf")
    assert HybridRetriever(*both).retrieve(QUESTION, 1)[0].ids == ("f",)
    assert all(retriever.asked >= 100 for retriever in both)


def test_equal_scores_stand_in_the_first_retrievers_order():
    (found,) = HybridRetriever(fixed("ab"), fixed("ba")).retrieve(QUESTION, 9)
    assert found.ids == ("a", "b")
    (found,) = HybridRetriever(fixed("ac"), fixed("bd")).retrieve(QUESTION, 3)
    assert found.ids == ("a", "b", "c")


def test_a_retriever_with_itself_keeps_its_order():
    bm25 = BM25Retriever(CORPUS)
    questions = [Question("letter c", ("x",)), Question("the letter F?", ("x",))]
    fused = HybridRetriever(bm25, bm25).retrieve(questions, 6)
    assert [f.ids for f in fused] == [f.ids for f in bm25.retrieve(questions, 6)]


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="at least two"):
        HybridRetriever(fixed("a"))
    with pytest.raises(InputError, match="k must be 1 or more"):
        HybridRetriever(fixed("a"), fixed("b")).retrieve(QUESTION, 0)
    assert HybridRetriever(fixed("a"), fixed("b")).retrieve([], 3) == []


def test_the_scale_of_the_scores_is_the_users_to_choose():
    both = fixed("ab"), fixed("ba")
    assert HybridRetriever(*both).score_scale == 800.0
    assert HybridRetriever(*both, score_scale=50.0).score_scale == 50.0
