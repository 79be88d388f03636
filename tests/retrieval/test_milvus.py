"""The Milvus adapter, on Milvus Lite; on a server too, where RAGBOOK_MILVUS_URI names one."""

import os

import numpy as np
import pytest

pytest.importorskip("pymilvus", reason="pymilvus is not installed (pip install ragbook[milvus])")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed (ragbook[milvus])")

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.index import build_index
from ragbook.retrieval import DenseRetriever, MilvusRetriever, milvus
from ragbook.retrieval.milvus import fill_collection
from tests.fakes import HashEncoder, animals

QUESTIONS = [Question(f"Which {kind} eats {i} grams?", ()) for i, kind in enumerate(
    ["otter", "heron", "lynx", "newt", "eider", "marten", "pike", "Øresund", "zebra"])]  # fmt: skip


class Drawn(HashEncoder):
    """A text's vector is drawn, seeded by the text: no two scores are equal but for rounding."""

    def __init__(self, metric: str) -> None:
        super().__init__(f"fake/drawn-{metric}")
        self.metric, self.similarity = metric, "l2" if metric == "l2" else "dot"

    def _vector(self, text):
        rng = np.random.default_rng(list(text.encode()))
        return rng.normal(size=self.dimension).astype(np.float32)


@pytest.fixture
def uri(tmp_path) -> str:
    return os.environ.get("RAGBOOK_MILVUS_URI") or str(tmp_path / "milvus.db")


@pytest.mark.parametrize("encoder", [Drawn("inner_product"), Drawn("l2")], ids=lambda e: e.metric)
def test_results_are_those_of_the_exact_index(tmp_path, monkeypatch, uri, encoder):
    monkeypatch.setattr(milvus, "BATCH", 50)
    index = build_index(animals(203), tmp_path / "index", encoder, progress=False)
    fill_collection(index, uri, "animals", progress=False)
    retriever = MilvusRetriever(uri, "animals", encoder)
    for k in (1, 5, 300):
        expected = DenseRetriever(index, encoder).retrieve(QUESTIONS, k)
        for one, other in zip(expected, retriever.retrieve(QUESTIONS, k), strict=True):
            assert other.ids == one.ids
            assert other.passages == one.passages
            np.testing.assert_allclose(other.scores, one.scores, rtol=1e-4, atol=1e-4)
            assert other.scores.dtype == np.float32
    assert retriever.retrieve([], 5) == []
    with pytest.raises(InputError, match="k must be"):
        retriever.retrieve(QUESTIONS, 0)
    retriever.close()


def test_filtered_by_title(tmp_path, uri):
    odd = "T \"quoted\" 'and' back\\slash ü"
    corpus = Corpus("odd", [*animals(20), Passage("odd", odd, "An otter, oddly.")])
    index = build_index(corpus, tmp_path / "index", HashEncoder(), progress=False)
    fill_collection(index, uri, "odd", progress=False)
    retriever = MilvusRetriever(uri, "odd", HashEncoder())
    (found,) = retriever.retrieve(QUESTIONS[:1], 5, titles=[odd, "Newt 3"])
    assert set(found.ids) == {"odd", "newt-3"}
    (found,) = retriever.retrieve(QUESTIONS[:1], 5, titles=["nothing"])
    assert found.ids == ()
    retriever.close()


def test_cut_short_and_gone_on_with(tmp_path, monkeypatch, uri):
    monkeypatch.setattr(milvus, "BATCH", 10)
    index = build_index(animals(), tmp_path / "index", HashEncoder(), progress=False)
    texts, given = milvus._texts, []

    def stopping(passage):
        given.append(passage)
        if len(given) == 15:
            raise KeyboardInterrupt
        return texts(passage)

    with monkeypatch.context() as patch:
        patch.setattr(milvus, "_texts", stopping)
        with pytest.raises(KeyboardInterrupt):
            fill_collection(index, uri, "animals", progress=False)
    with pytest.raises(InputError, match="10 of 23"):
        MilvusRetriever(uri, "animals", HashEncoder())
    fill_collection(index, uri, "animals", progress=False)
    fill_collection(index, uri, "animals", progress=False)
    retriever = MilvusRetriever(uri, "animals", HashEncoder())
    assert len(retriever.retrieve(QUESTIONS[:1], 100)[0].ids) == 23
    retriever.close()


def test_what_does_not_fit_is_refused(tmp_path, uri):
    index = build_index(animals(), tmp_path / "index", HashEncoder(), progress=False)
    with pytest.raises(InputError, match="no collection 'animals'"):
        MilvusRetriever(uri, "animals", HashEncoder())
    fill_collection(index, uri, "animals", progress=False)
    with pytest.raises(InputError, match=r"fake/hash.*fake/other"):
        MilvusRetriever(uri, "animals", HashEncoder("fake/other"))
    other = build_index(animals(5), tmp_path / "other", HashEncoder(), progress=False)
    with pytest.raises(InputError, match="other passages"):
        fill_collection(other, uri, "animals", progress=False)
    long = Corpus("long", [Passage("a", "", "ü" * 40_000)])
    index = build_index(long, tmp_path / "long", HashEncoder(), progress=False)
    with pytest.raises(InputError, match="65,535 bytes"):
        fill_collection(index, uri, "long", progress=False)


def test_nobody_answers():
    with pytest.raises(InputError, match="No Milvus answers"):
        MilvusRetriever("http://127.0.0.1:9", "x", HashEncoder())
