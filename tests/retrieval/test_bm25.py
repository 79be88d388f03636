import math
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import bm25s
import numpy as np
import pytest
import Stemmer
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage, Question, load_corpus
from ragbook.errors import InputError
from ragbook.index import build_index, verify
from ragbook.manifests import BM25_FILE
from ragbook.retrieval import BM25Retriever, inverted
from ragbook.retrieval.bm25 import terms
from tests.fakes import HashEncoder, animals
from tests.kills import kills_of

ROOT = Path(__file__).resolve().parents[2]

STOP_WORDS = {
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they",
    "this", "to", "was", "will", "with",
}  # fmt: skip


def ask(*texts: str) -> list[Question]:
    return [Question(text, ("x",)) for text in texts]


def plain_terms(text: str) -> list[str]:
    stem = Stemmer.Stemmer("english").stemWord
    words = re.findall(r"\w+", text.lower())
    return [stem(word) for word in words if word not in STOP_WORDS]


def plain_bm25(corpus: Corpus, query: str, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """Lucene's BM25, written from its formula."""
    documents = [Counter(plain_terms(f"{p.title} {p.text}")) for p in corpus]
    average = sum(d.total() for d in documents) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for term in plain_terms(query):
            n = sum(term in d for d in documents)
            idf = math.log(1 + (len(documents) - n + 0.5) / (n + 0.5))
            tf = document[term]
            score += idf * tf / (tf + k1 * (1 - b + b * document.total() / average))
        scores.append(score)
    return scores


QUERIES = [
    "What does the lynx near the Danube eat?",
    "herons herons herons",  # a repeated term counts each time
    "number 7",
    "Newt 10 Øresund Gulf of Bothnia",
    "unheard-of zebra",
]


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_those_of_the_formula(query):
    corpus = animals()
    expected = plain_bm25(corpus, query)
    scores = BM25Retriever(corpus).scores(query)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    (found,) = BM25Retriever(corpus).retrieve(ask(query), 5)
    np.testing.assert_allclose(found.scores, sorted(expected, reverse=True)[:5], rtol=1e-5)


def test_passages_and_questions_are_stemmed_alike():
    corpus = Corpus("two", [Passage("0", "", "He was baking."), Passage("1", "", "They bake.")])
    (found,) = BM25Retriever(corpus).retrieve(ask("Who baked?"), 2)
    assert (found.scores > 0).all()
    assert terms(["running Runs"]) == [["run", "run"]]


def test_titles_are_searched():
    corpus = Corpus("two", [Passage("0", "Elbe", "A river."), Passage("1", "Oder", "A river.")])
    (found,) = BM25Retriever(corpus).retrieve(ask("the Oder"), 1)
    assert found.ids == ("1",)


def test_one_letter_tells_monarchs_apart():
    corpus = Corpus("kings", [Passage(n, f"Henry {n}", "A king.") for n in ("VIII", "IV", "V")])
    (found,) = BM25Retriever(corpus).retrieve(ask("When was Henry V crowned?"), 1)
    assert found.ids == ("V",)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text("ab ", max_size=8), min_size=1, max_size=12),
    st.text("abc ", max_size=8),
    st.integers(1, 15),
)
def test_order_is_by_score_then_position(texts, query, k):
    corpus = Corpus("random", [Passage(str(i), "b", text) for i, text in enumerate(texts)])
    retriever = BM25Retriever(corpus)
    scores = retriever.scores(query)
    (found,) = retriever.retrieve(ask(query), k)
    expected = sorted(range(len(texts)), key=lambda i: (-scores[i], i))[:k]
    assert found.ids == tuple(str(i) for i in expected)
    assert found.scores.tolist() == [scores[i] for i in expected]


@pytest.mark.parametrize("query", ["zyzzyva", "the of and", "", "?!", "🦦"])
def test_no_known_word_gives_the_first_passages_at_zero(query):
    (found,) = BM25Retriever(animals()).retrieve(ask(query), 3)
    assert found.ids == tuple(p.id for p in animals()[:3])
    assert found.scores.tolist() == [0, 0, 0]


def test_k_larger_than_the_corpus_and_bad_k():
    retriever = BM25Retriever(animals())
    (found,) = retriever.retrieve(ask("otter"), 100)
    assert len(found.ids) == len(found.scores) == len(found.passages) == 23
    with pytest.raises(InputError, match="k must be"):
        retriever.retrieve(ask("otter"), 0)


def test_question_of_ten_thousand_words():
    (found,) = BM25Retriever(animals()).retrieve(ask("otter danube " * 5_000), 3)
    assert found.scores[0] > 1_000


def test_corpus_without_words_is_refused():
    for passages in ([], [Passage("0", "", "the"), Passage("1", "?", "!")]):
        with pytest.raises(InputError, match="no words"):
            BM25Retriever(Corpus("void", passages))


def test_finds_gold_passages_of_miniwiki():
    from ragbook.corpus import load_questions

    questions = load_questions("miniwiki", "dev").head(100)
    found = BM25Retriever(load_corpus("miniwiki")).retrieve(questions, 5)
    hits = [q.gold_passage in r.ids for q, r in zip(questions, found, strict=True)]
    assert sum(hits) / len(hits) > 0.7


def test_the_library_has_the_stop_words_assumed_here():
    assert set(bm25s.stopwords.STOPWORDS_EN) == STOP_WORDS


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def found_by(retriever: BM25Retriever) -> list[tuple[tuple[str, ...], bytes]]:
    found = retriever.retrieve(ask(*QUERIES), 5)
    return [(one.ids, one.scores.tobytes()) for one in found]


def test_kept_lists_find_the_same_and_are_not_built_again(tmp_path, monkeypatch):
    built = BM25Retriever(animals())
    first = BM25Retriever(animals(), tmp_path)
    assert files(tmp_path) == [BM25_FILE]
    monkeypatch.setattr(inverted, "build", lambda corpus: pytest.fail("built again"))
    again = BM25Retriever(animals(), tmp_path)
    assert found_by(again) == found_by(first) == found_by(built)
    for query in QUERIES:
        assert again.scores(query).tobytes() == built.scores(query).tobytes()


def test_lists_of_other_passages_or_versions_are_replaced(tmp_path, monkeypatch):
    BM25Retriever(animals(8), tmp_path)
    assert found_by(BM25Retriever(animals(), tmp_path)) == found_by(BM25Retriever(animals()))
    assert inverted.read(animals(), tmp_path / BM25_FILE) is not None
    monkeypatch.setattr(inverted.bm25s, "__version__", "99")
    assert inverted.read(animals(), tmp_path / BM25_FILE) is None


@pytest.mark.parametrize("seed", range(40))
def test_a_changed_bit_is_found_and_mended(tmp_path, seed):
    path = tmp_path / BM25_FILE
    BM25Retriever(animals(), tmp_path)
    whole = path.read_bytes()
    rng = random.Random(seed)
    at = rng.randrange(len(whole)) if seed else 8  # the first byte of the header too
    flipped = bytearray(whole)
    flipped[at] ^= 1 << rng.randrange(8)
    path.write_bytes(flipped)
    read = inverted.read(animals(), path)
    assert read is None or bytes(flipped[8:200]).isspace()
    assert found_by(BM25Retriever(animals(), tmp_path)) == found_by(BM25Retriever(animals()))
    assert inverted.read(animals(), path) is not None


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_file_that_is_cut_short_is_replaced(tmp_path, kept):
    path = tmp_path / BM25_FILE
    BM25Retriever(animals(), tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    assert inverted.read(animals(), path) is None
    assert found_by(BM25Retriever(animals(), tmp_path)) == found_by(BM25Retriever(animals()))


def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path):
    code = f"""
import os, sys
from pathlib import Path
from ragbook.retrieval import inverted
from tests.fakes import animals
from ragbook.index import build_index, verify
from ragbook.manifests import BM25_FILE
from ragbook.retrieval import BM25Retriever, inverted
def killed(arrays, path, said):
    Path(path).write_bytes(b"half")
    os._exit(9)
inverted.save_file = killed
BM25Retriever(animals(), Path({str(tmp_path)!r}))
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert run.returncode == 9
    assert not (tmp_path / BM25_FILE).exists()
    assert [name for name in files(tmp_path) if name.endswith(".unfinished")]
    assert found_by(BM25Retriever(animals(), tmp_path)) == found_by(BM25Retriever(animals()))
    assert files(tmp_path) == [BM25_FILE]  # and what was left is gone


def test_lists_killed_anywhere_are_written_whole():
    kills, said = kills_of("retrieval/killed_lists.py", timeout=600)
    assert not said
    assert kills >= 5, "the writing was killed at too few points to mean anything"


def test_while_another_process_writes_the_lists_are_built_and_not_kept(tmp_path):
    with FileLock(tmp_path / f".{BM25_FILE}.lock"):
        found = found_by(BM25Retriever(animals(), tmp_path))
    assert found == found_by(BM25Retriever(animals()))
    assert files(tmp_path) == []


@pytest.mark.parametrize("broken", ["save_file", "FileLock"])
def test_a_folder_that_is_not_to_be_written_to_serves(tmp_path, monkeypatch, broken):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(inverted, broken, refuse)
    found = found_by(BM25Retriever(animals(), tmp_path))
    assert found == found_by(BM25Retriever(animals()))
    assert files(tmp_path) == []


def test_an_index_with_lists_beside_it_is_replaced_and_verified(tmp_path):
    index = build_index(animals(8), tmp_path / "index", HashEncoder(), progress=False)
    BM25Retriever(index.corpus, index.path)
    assert verify(index.path) == []
    other = build_index(
        animals(), tmp_path / "index", HashEncoder(), progress=False, overwrite=True
    )
    assert len(other) == len(animals())
    retriever = BM25Retriever(other.corpus, other.path)
    assert found_by(retriever) == found_by(BM25Retriever(animals()))


def test_questions_together_find_what_each_finds_alone():
    retriever = BM25Retriever(animals())
    alone = [retriever.retrieve([question], 4)[0] for question in ask(*QUERIES, "", "the")]
    for one, other in zip(retriever.retrieve(ask(*QUERIES, "", "the"), 4), alone, strict=True):
        assert one.ids == other.ids
        assert one.scores.tobytes() == other.scores.tobytes()
    assert retriever.retrieve([], 4) == []
