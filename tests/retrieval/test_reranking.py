import numpy as np
import pytest

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.evaluation.identity import _of_retriever
from ragbook.index import build_index
from ragbook.methods.cuts import encoders_of
from ragbook.models.cross_encoder import CrossEncoder
from ragbook.retrieval import (
    BM25Retriever,
    DenseRetriever,
    HybridRetriever,
    OracleRetriever,
    RandomRetriever,
    RerankedRetriever,
    RunRetriever,
)
from ragbook.retrieval import reranking as reranking_module
from ragbook.retrieval.runs import Ranking
from tests.fakes import HashEncoder, animals


class Lengths(CrossEncoder):
    """A cross-encoder that likes short passages, and notes which pairs it has scored."""

    def __init__(self):
        super().__init__(None, "lengths", "0" * 64)
        self.asked: list[tuple[str, str]] = []

    def scores(self, question, passages):
        self.asked += [(question, passage.id) for passage in passages]
        return np.array([-float(len(passage.text)) for passage in passages], np.float32)


CORPUS = animals()
QUESTIONS = [
    Question("Where does the otter live?", (), "otter-0", id="1"),
    Question("Which lynx is by the Danube?", (), "lynx-2", id="2"),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return build_index(CORPUS, tmp_path_factory.mktemp("index") / "own", HashEncoder())


def retrievers(index):
    dense, bm25 = DenseRetriever(index, HashEncoder()), BM25Retriever(CORPUS)
    ids = tuple(CORPUS.ids())[:9]
    run = {one: Ranking(ids, -np.arange(9, dtype=np.float32)) for one in ("1", "2")}
    return {
        "dense": dense,
        "bm25": bm25,
        "hybrid": HybridRetriever(dense, bm25),
        "oracle": OracleRetriever(CORPUS, dense),
        "random": RandomRetriever(CORPUS),
        "run": RunRetriever(CORPUS, run),
    }


@pytest.mark.parametrize("name", ["dense", "bm25", "hybrid", "oracle", "random", "run"])
def test_the_best_passages_of_any_retriever_are_ordered_anew(index, name):
    first = retrievers(index)[name]
    reranked = RerankedRetriever(first, Lengths(), 7)
    assert (reranked.name, reranked.score_scale) == (f"{name}-reranked", 1.0)
    for found, before in zip(
        reranked.retrieve(QUESTIONS, 4), first.retrieve(QUESTIONS, 7), strict=True
    ):
        best = sorted(before.passages, key=lambda p: len(p.text))[:4]  # stable
        assert found.passages == tuple(best)
        assert found.ids == tuple(p.id for p in best)
        assert found.scores.tolist() == [-len(p.text) for p in best]
        assert found.scores.dtype == np.float32


def test_each_pair_is_scored_once(index):
    reranker = Lengths()
    reranked = RerankedRetriever(retrievers(index)["bm25"], reranker, 5)
    first = reranked.retrieve(QUESTIONS[:1], 2)
    both = reranked.retrieve([*QUESTIONS, QUESTIONS[0]], 5)
    again = reranked.retrieve(QUESTIONS, 3)
    assert len(reranker.asked) == len(set(reranker.asked)) == 10
    assert first[0].ids == both[0].ids[:2] == both[2].ids[:2] == again[0].ids[:2]


def test_only_so_many_questions_are_kept(index, monkeypatch):
    monkeypatch.setattr(reranking_module, "KEPT", 1)
    reranker = Lengths()
    reranked = RerankedRetriever(retrievers(index)["bm25"], reranker, 5)
    found = [one.ids for one in reranked.retrieve(QUESTIONS, 5)]
    assert [reranked.retrieve([q], 5)[0].ids for q in reversed(QUESTIONS)] == found[::-1]
    assert len(reranker.asked) == 15  # the second question was kept, the first was not


def test_questions_with_the_same_words_keep_their_own_run():
    run = {
        "1": Ranking(("otter-0",), np.ones(1, np.float32)),
        "2": Ranking(("lynx-2",), np.ones(1, np.float32)),
    }
    reranked = RerankedRetriever(RunRetriever(CORPUS, run), Lengths(), 5)
    asked = [Question("Who?", (), id=one) for one in ("1", "2", "3")]
    assert [one.ids for one in reranked.retrieve(asked, 5)] == [("otter-0",), ("lynx-2",), ()]


@pytest.mark.parametrize(("depth", "k", "said"), [(5, 0, "k must be 1"), (5, 6, "5 passages are")])
def test_more_than_is_reranked_is_refused(index, depth, k, said):
    reranked = RerankedRetriever(retrievers(index)["bm25"], Lengths(), depth)
    with pytest.raises(InputError, match=said):
        reranked.retrieve(QUESTIONS, k)


def test_a_depth_of_0_is_refused(index):
    with pytest.raises(InputError, match="must be 1 or more, not 0"):
        RerankedRetriever(retrievers(index)["bm25"], Lengths(), 0)


def test_its_parts_are_found(index):
    parts = retrievers(index)
    for name in ("dense", "hybrid", "oracle"):
        reranked = RerankedRetriever(parts[name], Lengths())
        assert reranked.index is index
        assert len(encoders_of(reranked)) == 1
    assert RerankedRetriever(parts["bm25"], Lengths()).index is None
    assert RerankedRetriever(parts["bm25"], Lengths()).corpus is CORPUS
    assert RerankedRetriever(parts["hybrid"], Lengths()).corpus is CORPUS


def test_the_identity_of_a_comparison_covers_all_that_orders_passages(index):
    parts = retrievers(index)
    other = Lengths()
    other.sha256 = "1" * 64
    other_run = RunRetriever(CORPUS, {"1": Ranking(("otter-0",), np.ones(1, np.float32))})
    own = [
        *parts.values(),
        other_run,
        *(RerankedRetriever(part, Lengths()) for part in parts.values()),
        RerankedRetriever(other_run, Lengths()),
        RerankedRetriever(parts["bm25"], Lengths(), 50),
        RerankedRetriever(parts["bm25"], other),
        BM25Retriever(Corpus("other", [Passage("a", "", "A word.")])),
    ]
    seen = [repr(_of_retriever(one)) for one in own]
    assert len(set(seen)) == len(seen)
    assert repr(_of_retriever(retrievers(index)["run"])) == repr(_of_retriever(parts["run"]))
