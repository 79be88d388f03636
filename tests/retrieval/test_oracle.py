import numpy as np
import pytest

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.retrieval import BM25Retriever, OracleRetriever, Retrieved
from tests.fakes import FixedRetriever

CORPUS = Corpus("letters", [Passage(i, i.upper(), f"The letter {i}.") for i in "abcdef"])


def fixed(ids: str) -> FixedRetriever:
    """These passages with the scores 3, 2.5, 2, ..."""
    return FixedRetriever([CORPUS.get(i) for i in ids], 3 - 0.5 * np.arange(len(ids)), 4.0)


def retrieve(gold: str, ids: str, k: int) -> Retrieved:
    oracle = OracleRetriever(CORPUS, fixed(ids))
    assert (oracle.name, oracle.score_scale) == ("oracle", 4.0)
    (found,) = oracle.retrieve([Question("?", ("x",), gold)], k)
    assert found.passages == tuple(CORPUS.get(i) for i in found.ids)
    assert found.scores.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all()
    return found


@pytest.mark.parametrize(
    ("gold", "ids", "k", "expected", "scores"),
    [
        ("d", "abcdef", 3, "dab", [3.25, 3, 2.5]),  # not among the fallback's k
        ("b", "abcdef", 3, "bac", [3.25, 3, 2]),  # among them, not first
        ("a", "abcdef", 3, "abc", [3, 2.5, 2]),  # first already, and far enough ahead
        ("d", "abcdef", 1, "d", [3.25]),
        ("a", "abcdef", 1, "a", [3]),
        ("f", "abcdef", 10, "fabcde", [3.25, 3, 2.5, 2, 1.5, 1]),  # k larger than the corpus
    ],
)
def test_gold_first_then_the_others_in_order(gold, ids, k, expected, scores):
    found = retrieve(gold, ids, k)
    assert found.ids == tuple(expected)
    assert found.scores.tolist() == scores


def test_of_a_gold_document_the_piece_with_the_answer_is_first():
    pieces = [Passage(f"doc-{i}", "", f"The letter {letter}.") for i, letter in enumerate("abc", 1)]
    corpus = Corpus("pieces", pieces)
    oracle = OracleRetriever(corpus, FixedRetriever(pieces, [3, 2, 1]))
    (found,) = oracle.retrieve([Question("?", ("letter C",), "doc")], 2)
    assert found.ids == ("doc-3", "doc-1")


def test_gold_leads_by_one_nat_of_prior():
    found = retrieve("c", "abcdef", 5)
    prior = np.exp(4.0 * found.scores) / np.exp(4.0 * found.scores).sum()
    assert np.log(prior[0] / prior[1]) == pytest.approx(1, abs=1e-5)


def test_over_a_corpus_of_one_passage():
    corpus = Corpus("one", [Passage("0", "Only", "The only passage.")])
    (found,) = OracleRetriever(corpus, BM25Retriever(corpus)).retrieve(
        [Question("only?", ("x",), "0")], 5
    )
    assert found.ids == ("0",)


@pytest.mark.parametrize(
    ("gold", "words"), [(None, "names no gold passage"), ("z", "'z' .* is not in corpus 'letters'")]
)
def test_without_its_gold_passage_a_question_is_refused(gold, words):
    oracle = OracleRetriever(CORPUS, fixed("abc"))
    with pytest.raises(InputError, match=words):
        oracle.retrieve([Question("Which letter?", ("x",), gold)], 3)


def test_bad_k():
    oracle = OracleRetriever(CORPUS, BM25Retriever(CORPUS))
    with pytest.raises(InputError, match="k must be"):
        oracle.retrieve([Question("?", ("x",), "a")], 0)
