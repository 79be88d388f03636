"""What gold ids mean: a passage, the pieces of a document, or nothing in this corpus."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage, Question, QuestionSet, load_corpus
from ragbook.corpus.building import build_passages
from ragbook.corpus.gold import document_of, gold_passage, meanings, missing, placed
from ragbook.corpus.gold import missing_sentence as sentence_of
from ragbook.corpus.sources import Source
from ragbook.corpus.splitting import WORDS
from ragbook.index.passages import StoredPassages, write_passages

DOCUMENTS = [
    Passage("0", "Long", " ".join(["word"] * 210 + ["Xanadu"] + ["word"] * 30)),
    Passage("1", "Short", "Short text."),
    Passage("a-2", "Dashed", "Another text."),
]


@pytest.fixture
def built(tmp_path) -> Corpus:
    """The documents, cut into passages by `ragbook corpus build`'s function."""
    out = tmp_path / "built.jsonl"
    build_passages(Source("s", "1", lambda: iter(DOCUMENTS)), out, progress=False)
    return load_corpus(out)


def questions(*gold: str | None) -> QuestionSet:
    return QuestionSet("q", "all", [Question(f"Q{i}?", ("xanadu",), g) for i, g in enumerate(gold)])


def test_a_document_means_its_pieces(built):
    asked = placed(questions("0", "1", "a-2", None, "a", "5"), built)
    assert [q.gold_passages for q in asked] == [
        ("0-1", "0-2", "0-3"),
        ("1",),
        ("a-2",),
        (),
        ("a-2",),
        (),
    ]
    assert [q.gold_passage for q in asked] == ["0", "1", "a-2", None, "a", "5"]  # as in the file
    assert asked.sha256 == questions("0", "1", "a-2", None, "a", "5").sha256
    assert [q.gold_passage for q in missing(asked)] == ["5"]
    sentence = sentence_of(asked, built.name)
    assert sentence is not None
    assert sentence.startswith("1 of 5 gold passages are not in corpus 'built', such as '5' of")
    assert sentence_of(placed(questions("0", "1"), built), "built") is None


def test_every_document_is_found_again_in_what_was_built_of_it(built):
    found = meanings(built.ids(), [document.id for document in DOCUMENTS])
    for document in DOCUMENTS:
        pieces = [built.get(one) for one in found[document.id]]
        assert " ".join(piece.text for piece in pieces) == document.text
        assert all(len(piece.text.split()) <= WORDS for piece in pieces)


def test_stored_passages_give_the_same(built, tmp_path):
    path = tmp_path / "passages.arrow"
    write_passages(path, built)
    stored = StoredPassages(path, "built", "")
    assert list(stored.ids()) == list(built.ids())
    asked = questions("0", "1", "9")
    assert list(placed(asked, stored)) == list(placed(asked, built))


def test_of_a_document_the_piece_with_the_answer_is_taken(built):
    found = [gold_passage(built, q) for q in questions("0", "1", None, "9")]
    assert [None if one is None else one.id for one in found] == ["0-3", "1", None, None]
    first = gold_passage(built, Question("Q?", ("nowhere",), "0"))
    assert first is not None
    assert first.id == "0-1"


def test_a_passage_is_not_its_own_piece():
    """Where both `a` and `a-1` are passages, `a` means only itself."""
    corpus = Corpus("c", [Passage("a", "", "x"), Passage("a-1", "", "y")])
    (question,) = placed(questions("a"), corpus)
    assert question.gold_passages == ("a",)
    assert question.placed is None


@given(st.text(), st.integers(1, 10**8))
def test_the_way_back_is_that_of_the_pieces_names(document, number):
    assert document_of(f"{document}-{number}") == (document or None)


@pytest.mark.parametrize("other", ["a", "a-", "a-0", "a-01", "a-b", "-1", "", "a-1٢"])
def test_other_ids_lead_nowhere(other):
    assert document_of(other) is None


PLACES = [
    *("a.md#L1", "a.md#L1.2", "a.md#L9", "a.md#L10", "b.pdf#page=1", "b.pdf#page=2.3"),
    *("c.html#P5", "sub/a.md#L3", "C#", "x#L0", "n-1", "n-2", "a.md#L9-1", "a.md#L9-2"),
]


@pytest.fixture(params=["corpus", "stored"])
def of_files(request, tmp_path):
    """Passages whose ids name file and place; every third holds the answer."""
    passages = [Passage(id, "", "xanadu" if n % 3 == 2 else "x") for n, id in enumerate(PLACES)]
    if request.param == "corpus":
        return Corpus("files", passages)
    write_passages(tmp_path / "passages.arrow", passages)
    return StoredPassages(tmp_path / "passages.arrow", "files", "")


@pytest.mark.parametrize(
    ("gold", "means"),
    [
        ("a.md", ("a.md#L1", "a.md#L1.2", "a.md#L9", "a.md#L10")),
        ("b.pdf", ("b.pdf#page=1", "b.pdf#page=2.3")),
        ("c.html", ("c.html#P5",)),
        ("sub/a.md", ("sub/a.md#L3",)),
        ("a.md#L9", ("a.md#L9",)),
        ("n", ("n-1", "n-2")),
        *((lost, ()) for lost in ("C", "x", "sub", "md", "b", "")),
    ],
)
def test_a_file_means_its_pieces(of_files, gold, means):
    (asked,) = placed(questions(gold), of_files)
    assert asked.gold_passages == means
    found = gold_passage(of_files, asked)
    holding = [one for one in means if PLACES.index(one) % 3 == 2]
    assert (found and found.id) == next(iter([*holding, *means]), None)


@pytest.mark.parametrize("file", ["a.md", "x#L3", "ü b%.md", "-", "a\nb", "#L1"])
@pytest.mark.parametrize("place", ["#L1", "#L12.2", "#P5", "#P5.10", "#page=3", "#page=3.2"])
def test_the_way_back_from_a_place(file, place):
    assert document_of(f"{file}{place}") == file


@pytest.mark.parametrize(
    "other", ["#L1", "a#L", "a#L0", "a#L01", "a#L1.0", "a#L1.", "a#l1", "a#Q1", "a#L1\n", "a#L١"]
)
def test_what_looks_like_a_place_leads_nowhere(other):
    assert document_of(other) is None


def test_ids_are_read_once_for_all_questions(of_files, monkeypatch):
    reads, ids = [], type(of_files).ids
    monkeypatch.setattr(type(of_files), "ids", lambda self: reads.append(1) or ids(self))
    for question in questions("a.md", "b.pdf", "nowhere", "c.html", "a.md", "n"):
        gold_passage(of_files, question)
    assert len(reads) <= 2  # stored passages read them once more to know where each stands


def test_a_title_means_the_passages_of_its_article(built, tmp_path):
    write_passages(tmp_path / "p.arrow", built)
    stored = StoredPassages(tmp_path / "p.arrow", built.name, built.sha256)
    for corpus in (built, stored):
        asked = placed(questions("Long", "Dashed", "Nowhere", "99"), corpus)
        assert [q.gold_passages for q in asked] == [("0-1", "0-2", "0-3"), ("a-2",), (), ()]
        assert [q.gold_passage for q in missing(asked)] == ["Nowhere", "99"]
        assert gold_passage(corpus, asked[0]) == built.get("0-3")  # it holds the answer
        assert gold_passage(corpus, asked[2]) is None


def test_a_title_that_is_an_id_too_is_the_id():
    corpus = Corpus("c", [Passage("1984", "Novels", "a"), Passage("2", "1984", "b")])
    assert placed(questions("1984"), corpus)[0].gold_passages == ("1984",)
    assert placed(questions("Novels"), corpus)[0].gold_passages == ("1984",)
    corpus = Corpus("c", [Passage("1", "1984", "a")])
    assert placed(questions("1984"), corpus)[0].gold_passages == ()  # an id of another corpus


def test_several_gold_ids_count_each(built):
    question = Question("Q?", ("xanadu",), "1", also_gold=("Long", "gone"))
    (asked,) = placed(QuestionSet("q", "all", [question]), built)
    assert asked.gold_passages == ("1", "0-1", "0-2", "0-3")
    assert missing([asked]) == []
    assert gold_passage(built, asked) == built.get("1")
