"""What readers are shown is what it says it is."""

import random

import pytest

from ragbook.corpus import Corpus, Passage, Question, miniwiki
from ragbook.errors import InputError
from ragbook.training.reader.examples import GoldExamples, cloze_question, exchange, infilling
from tests.fakes import RandomEncoder

DANUBE = Passage("d", "Danube", "In Vienna the Danube is wide. Ludwig Bemelmans saw it in 1931.")


def test_cloze_asks_for_a_name_or_number_of_the_passage():
    rng = random.Random(3)
    drawn = [cloze_question(rng, DANUBE) for _ in range(60)]
    found = {question.answers[0] for question in drawn if question}
    assert found <= {"Vienna", "1931", "Danube"} | {"Ludwig Bemelmans"}
    assert "1931" in found


def test_an_answer_is_exchanged_only_for_what_may_stand_there():
    rng = random.Random(0)
    assert exchange(rng, DANUBE, "1931", ["1874"]) == "1874"
    assert exchange(rng, DANUBE, "1931", ["1931", "Vienna", "Danube"]) == "1931"  # all taken
    assert exchange(rng, DANUBE, "Danube", ["Elbe"]) == "Danube"  # the title would give it away
    assert exchange(rng, DANUBE, "Dan", ["Elbe"]) == "Dan"  # a part of a word
    assert exchange(rng, DANUBE, "Rhine", ["Elbe"]) == "Rhine"  # not there


def test_miniwiki_examples_keep_their_promises(monkeypatch):
    """The answer shown is the answer asked for, exchanged or not; others are left as they are."""
    monkeypatch.setattr("ragbook.models.load_encoder", RandomEncoder)
    source = GoldExamples(miniwiki.corpus(), miniwiki.questions("train"))
    own = {q.text: q for q in source.questions}
    rng, changed = random.Random(1), 0
    for _ in range(200):
        drawn = source.example(rng, 3, 0.1)
        asked = own[drawn.question.text]
        assert len({p.id for p in drawn.passages}) == 3
        if drawn.gold is None:
            assert asked.gold_passage not in {p.id for p in drawn.passages}
            continue
        assert drawn.passages[drawn.gold].id == asked.gold_passage
        assert drawn.question.answers[0].lower() in drawn.passages[drawn.gold].text.lower()
        changed += drawn.question.answers != asked.answers
        for p in drawn.passages:
            if p.id != asked.gold_passage:
                assert p == source.corpus.get(p.id)
    assert 15 < changed < 80


def test_only_questions_that_their_passage_answers_are_taught(monkeypatch):
    monkeypatch.setattr("ragbook.models.load_encoder", RandomEncoder)
    rivers = [Passage(str(i), f"River {i}", f"River {i} rises at Vel{i}.") for i in range(12)]
    corpus = Corpus("rivers", rivers)
    asked = [
        Question("Where does river 1 rise?", ("the hills", "vel1"), "1"),
        Question("Where does river 2 rise?", ("Vel3",), "2"),
        Question("Where does river 3 rise?", ("Vel3",)),
    ]
    source = GoldExamples(corpus, asked)
    assert [q.answers for q in source.questions] == [("vel1", "the hills")]
    drawn = source.example(random.Random(0), 6, 0.0)
    assert len({p.id for p in drawn.passages}) == 6
    with pytest.raises(InputError, match="No question has a gold passage in 'rivers'"):
        GoldExamples(corpus, asked[1:])
    with pytest.raises(InputError, match="need at least 12"):
        GoldExamples(Corpus("few", rivers[:11]), asked)


def test_gold_passages_of_another_corpus_are_left_out_or_named(monkeypatch):
    monkeypatch.setattr("ragbook.models.load_encoder", RandomEncoder)
    rivers = [Passage(f"{i}-1", f"River {i}", f"River {i} rises at Vel{i}.") for i in range(12)]
    corpus = Corpus("rivers", rivers)
    asked = [
        Question("Where does river 1 rise?", ("Vel1",), "1"),  # the document of 1-1
        Question("Where does river 2 rise?", ("Vel2",), "Q2$1"),
    ]
    (taught,) = GoldExamples(corpus, asked).questions
    assert taught.gold_passage == "1-1"
    with pytest.raises(InputError, match=r"1 of 1 gold passages .* such as 'Q2\$1'"):
        GoldExamples(corpus, asked[1:])


def test_a_run_to_be_restored_stands_in_its_passage_once():
    rng = random.Random(0)
    words = set(DANUBE.text.split())
    drawn = [question for _ in range(100) if (question := infilling(rng, DANUBE))]
    assert len(drawn) > 80
    for question in drawn:
        (answer,) = question.answers
        assert DANUBE.text.count(answer) == 1
        title, shown = question.text.split(": ", 1)
        kept = shown.split()
        assert title == "Danube"
        assert len(kept) == len(answer.split())
        for word, own in zip(kept, answer.split(), strict=True):
            assert word == "[MASK]" or (word.startswith(own) and word in words)
    masked = sum(question.text.count("[MASK]") for question in drawn)
    assert 0.4 < masked / sum(len(question.answers[0].split()) for question in drawn) < 0.6


def test_found_passages_are_the_best_and_one_of_them_answers(monkeypatch):
    """Questions and passages with the same vectors: each question finds its own passage first."""
    monkeypatch.setattr("ragbook.models.load_encoder", RandomEncoder)
    rivers = [Passage(str(i), f"River {i}", f"It rises at Vel{i}.") for i in range(12)]
    asked = [Question(f"Where does river {i} rise?", (f"Vel{i}",), str(i)) for i in range(12)]
    source = GoldExamples(Corpus("rivers", rivers), asked)
    found = source.found(3)
    assert [f.question for f in found] == asked
    for f in found:
        assert f.passages[0].id == f.question.gold_passage
        assert (len(f.passages), f.holder) == (3, 0)
        assert f.scores[0] == pytest.approx(20.0, abs=1e-4)
        assert list(f.scores) == sorted(f.scores, reverse=True)
    elsewhere = [Question(q.text, q.answers, str((i + 1) % 12)) for i, q in enumerate(asked)]
    with pytest.raises(InputError, match="No question has a gold passage"):
        GoldExamples(Corpus("rivers", rivers), elsewhere)
    vectors = RandomEncoder().encode_passages(range(12))
    far = int((vectors @ vectors[0]).argmin())
    lost = [Question("Where does a river rise?", (f"Vel{far}",), str(far))]
    with pytest.raises(InputError, match="Retrieval finds no answer"):
        GoldExamples(Corpus("rivers", rivers), lost).found(3)
