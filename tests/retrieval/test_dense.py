import numpy as np
import pytest

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index
from ragbook.retrieval import DenseRetriever
from tests.fakes import HashEncoder, animals


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> PassageIndex:
    out = tmp_path_factory.mktemp("built") / "index"
    return build_index(animals(), out, HashEncoder(), progress=False)


QUESTIONS = [
    Question("What does the lynx near the Danube eat?", ("newt",)),
    Question("Which number has the heron of the Tagus?", ("1",)),
    Question("Øresund", ("a strait",)),
]


def test_retrieval_is_brute_force_over_encoded_texts(index):
    encoder, corpus = HashEncoder(), animals()
    retriever = DenseRetriever(index, encoder)
    assert retriever.name == "dense"
    assert retriever.score_scale == encoder.score_scale
    exact = (
        encoder.encode_queries([q.text for q in QUESTIONS]).astype(float)
        @ encoder.encode_passages(corpus).astype(float).T
    )
    for row, found in zip(exact, retriever.retrieve(QUESTIONS, 4), strict=True):
        best = np.argsort(-row, kind="stable")[:4]
        # float32 cannot tell some scores apart: which of those passages stand here is open.
        rows = [corpus.position(passage_id) for passage_id in found.ids]
        np.testing.assert_allclose(row[rows], row[best], atol=1e-6)
        assert len(set(rows)) == 4
        assert found.passages == tuple(corpus[i] for i in rows)
        assert found.scores.dtype == np.float32
        np.testing.assert_allclose(found.scores, row[best], atol=1e-6)


def test_k_larger_than_the_corpus(index):
    (found,) = DenseRetriever(index, HashEncoder()).retrieve(QUESTIONS[:1], 99)
    assert sorted(found.ids) == sorted(p.id for p in animals())
    assert (np.diff(found.scores) <= 0).all()


def test_another_encoder_is_refused(index):
    with pytest.raises(InputError, match=r"fake/hash.*fake/other"):
        DenseRetriever(index, HashEncoder("fake/other"))


def test_no_questions_and_bad_k(index):
    retriever = DenseRetriever(index, HashEncoder())
    assert retriever.retrieve([], 5) == []
    with pytest.raises(InputError, match="k must be"):
        retriever.retrieve(QUESTIONS, 0)


def test_question_of_ten_thousand_words(index):
    long = Question("otter " * 10_000, ("x",))
    (found,) = DenseRetriever(index, HashEncoder()).retrieve([long], 3)
    assert all("otter" in passage.text for passage in found.passages)


@pytest.mark.parametrize("k", [1, 5, 23])
def test_what_an_approximate_index_does_not_find_is_left_out(k):
    """Faiss gives -1 where the cells it looked into held fewer than k: never the last passage."""
    import faiss

    encoder, corpus = HashEncoder(), animals()
    vectors = encoder.encode_passages(corpus)
    cells = faiss.IndexIVFFlat(faiss.IndexFlatIP(64), 64, 8, faiss.METRIC_INNER_PRODUCT)
    cells.train(vectors)  # type: ignore[call-arg]
    cells.add(vectors)  # type: ignore[call-arg]

    class Approximate:
        """The index's interface over cells of which a search sees one."""

        def __init__(self):
            self.corpus = corpus

        def check_encoder(self, encoder):
            pass

        def search(self, queries, k):
            return cells.search(queries, k)  # type: ignore[call-arg]

    fake: PassageIndex = Approximate()  # type: ignore[assignment]
    _, positions = cells.search(encoder.encode_queries([q.text for q in QUESTIONS]), k)  # type: ignore[call-arg]
    assert (positions == -1).any() == (k > 1)
    for row, found in zip(
        positions, DenseRetriever(fake, encoder).retrieve(QUESTIONS, k), strict=True
    ):
        assert found.ids == tuple(corpus[i].id for i in row if i >= 0)
        assert len(found.ids) == len(found.scores) == len(found.passages) <= k
        assert np.isfinite(found.scores).all()
        assert (found.scores > -2).all()
