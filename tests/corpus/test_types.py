"""Corpora and question sets: order, look-up, and hashes that tell different contents apart."""

import dataclasses
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage, Question, QuestionSet, passages_sha256
from ragbook.corpus.ids import Ids
from ragbook.errors import InputError

A = Passage("1", "Rhine", "It flows north.")
B = Passage("2", "Danube", "It flows east.")


def test_a_corpus_is_a_sequence_with_look_up_by_id():
    corpus = Corpus("rivers", [A, B])
    assert list(corpus) == [A, B]
    assert (corpus[0], corpus[-1], corpus[1:], len(corpus)) == (A, B, (B,), 2)
    assert (corpus.name, corpus.position("2"), corpus.get("2")) == ("rivers", 1, B)
    with pytest.raises(KeyError):
        corpus.get("3")
    with pytest.raises(KeyError):
        corpus.position("3")


def test_two_passages_of_one_id_are_refused():
    with pytest.raises(InputError, match="'1'"):
        Corpus("rivers", [A, B, Passage("1", "Elbe", "It flows, too.")])


def test_the_corpus_hash_is_of_contents_and_order_and_not_of_the_name():
    assert Corpus("x", [A, B]).sha256 == Corpus("y", [A, B]).sha256
    assert Corpus("x", [A, B]).sha256 != Corpus("x", [B, A]).sha256
    assert Corpus("x", [A]).sha256 == passages_sha256(iter([A]))


fields = st.text(alphabet=["a", "b", "\0", "\n", "\t", "é", "\ud800"], max_size=3)
contents = st.lists(st.builds(Passage, fields, fields, fields), max_size=3)


@given(contents, contents)
def test_two_corpora_have_one_hash_only_if_they_are_equal(left, right):
    assert (passages_sha256(left) == passages_sha256(right)) == (left == right)


question_fields = st.text(alphabet=["a", '"', ",", "é", "\ud800"], max_size=2)
question_lists = st.lists(
    st.builds(
        Question,
        question_fields,
        st.lists(question_fields, max_size=2).map(tuple),
        st.none() | question_fields,
    ),
    max_size=2,
)


@given(question_lists, question_lists)
def test_two_question_sets_have_one_hash_only_if_they_are_equal(left, right):
    hashes = [QuestionSet("q", "all", questions).sha256 for questions in (left, right)]
    assert (hashes[0] == hashes[1]) == (left == right)


def test_head_keeps_name_and_split_and_bounds():
    asked = QuestionSet("rivers", "dev", [Question(str(i), ("x",)) for i in range(3)])
    assert [q.text for q in asked.head(2)] == ["0", "1"]
    assert (asked.head(2).name, asked.head(2).split) == ("rivers", "dev")
    assert len(asked.head(99)) == 3
    with pytest.raises(InputError, match="at least 1"):
        asked.head(0)


def test_reading_a_corpus_loads_no_heavy_library():
    heavy = "torch transformers faiss pandas scipy matplotlib numpy"
    code = (
        "import sys, ragbook; ragbook.load_corpus('miniwiki'); ragbook.load_questions('miniwiki');"
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_passage_serves_as_a_dataclass_does():
    passage = Passage("1", "Elbe", "It flows.")
    assert dataclasses.replace(passage, text="It floods.") == Passage("1", "Elbe", "It floods.")
    assert dataclasses.asdict(passage) == {"id": "1", "title": "Elbe", "text": "It flows."}
    assert [field.name for field in dataclasses.fields(passage)] == ["id", "title", "text"]
    assert pickle.loads(pickle.dumps(passage)) == passage
    assert len({passage, Passage("1", "Elbe", "It flows.")}) == 1
    with pytest.raises(AttributeError):
        passage.text = "It floods."  # type: ignore[misc]


@given(
    st.lists(st.sampled_from(["0", "00", "01", "1", "9" * 9, "9" * 10, "1٢", "", "a", "-1", "12"]))
)
def test_ids_are_a_set(ids):
    found, plain = Ids(), set()
    for one in ids:
        assert found.add(one) == (one not in plain)
        plain.add(one)
        assert all((each in found) == (each in plain) for each in ("0", "01", "1", "12", "a", "5"))
