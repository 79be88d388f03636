"""What follows a change of passages, with made-up answers whose shares can be counted by hand."""

import math

import pytest
from experiments import changed_knowledge

from ragbook.corpus import Corpus, Passage, Question, miniwiki
from ragbook.methods.base import Answer, Evidence

CORPUS = Corpus(
    "towns",
    [
        Passage("a", "Ash", "The mayor of Ash is Ann Archer. Ann Archer was born in 1950."),
        Passage("b", "Birch", "The mayor of Birch is Bob Baker."),
        Passage("c", "Cedar", "Cedar was founded in 1801 and burnt down in 18012."),
        Passage("d", "Dogwood", "Dogwood lies on a lake."),
    ],
)
QUESTIONS = [
    Question("Who leads Ash?", ("Ann Archer", "Archer"), "a"),
    Question("Who leads Birch?", ("Bob Baker",), "b"),
    Question("When was Cedar founded?", ("1801",), "c"),
    Question("What does Dogwood lie on?", ("water",), "d"),
]


def said(*texts, weights=(), p=0.5):
    evidence = tuple(Evidence(i, w) for i, w in weights)
    return {"m": [Answer("?", text, math.log(p), evidence, 0.1) for text in texts]}


def test_passages_go_and_come():
    found = changed_knowledge.edited(CORPUS, {"a", "c"}, [Passage("e", "Elm", "An elm.")], "new")
    assert [p.id for p in found] == ["b", "d", "e"]
    assert found.name == "new"


def test_a_counterfeit_says_another_name_wherever_the_right_one_stood():
    kept, passages, false = changed_knowledge.counterfeits(QUESTIONS, CORPUS)
    # No other answer is a number; "water" does not stand in its passage.
    assert [q.gold_passage for q in kept] == ["a", "b"]
    assert false == ["Bob Baker", "Ann Archer"]
    assert passages[0].text == "The mayor of Ash is Bob Baker. Bob Baker was born in 1950."
    assert passages[0].title == "Ash"
    assert len({p.id for p in (*passages, *CORPUS)}) == 6


def test_a_number_is_exchanged_as_a_word_of_its_own():
    more = [*QUESTIONS, Question("When did Elm burn?", ("1900",), "d")]
    kept, passages, _ = changed_knowledge.counterfeits(more, CORPUS)
    text = dict(zip([q.gold_passage for q in kept], [p.text for p in passages], strict=True))["c"]
    assert text == "Cedar was founded in 1900 and burnt down in 18012."


def test_counterfeits_of_miniwiki_are_false_and_one_a_passage():
    questions = miniwiki.questions("test")[:200]
    kept, passages, false = changed_knowledge.counterfeits(questions, miniwiki.corpus())
    golds = {question.gold_passage for question in questions}
    assert 0.8 * len(golds) < len(kept) == len({question.gold_passage for question in kept})
    for question, passage, answer in zip(kept, passages, false, strict=True):
        true = miniwiki.corpus().get(question.gold_passage or "")
        assert passage.text != true.text
        assert answer in passage.text
        assert answer not in question.answers


def test_following_is_being_right_with_both():
    then = [Question("q", ("old",)) for _ in range(4)]
    now = [Question("q", ("new",)) for _ in range(4)]
    answers = {"2012": said("old", "old", "x", "new"), "2022": said("new", "old", "new", "The new")}
    found = changed_knowledge.followed(answers, {"2012": then, "2022": now})["methods"]["m"]
    assert found["follows"]["mean"] == 0.25
    assert found["same"]["mean"] == 0.5
    assert found["right"]["2012"]["2012"]["mean"] == 0.5
    assert found["right"]["2012"]["2022"]["mean"] == 0.25
    assert found["right"]["2022"]["2012"]["mean"] == 0.25
    assert found["right"]["2022"]["2022"]["mean"] == 0.75


def test_damage_is_what_moved_and_what_that_cost():
    questions = [Question("q", ("yes",)) for _ in range(4)]
    found = changed_knowledge.damage(
        said("yes", "yes", "a", "no"), said("yes", "b", "yes", "No."), questions
    )
    entry = found["methods"]["m"]
    assert found["n"] == 4
    assert entry["moved"]["mean"] == 0.5
    assert entry["before"]["mean"] == entry["after"]["mean"] == 0.5
    assert entry["difference"]["mean"] == 0


def test_damage_is_counted_from_before_to_after():
    questions = [Question("q", ("yes",)) for _ in range(4)]
    before, after = said("yes", "yes", "yes", "no"), said("yes", "b", "c", "no")
    entry = changed_knowledge.damage(before, after, questions)["methods"]["m"]
    assert (entry["before"]["mean"], entry["after"]["mean"]) == (0.75, 0.25)
    assert entry["difference"]["mean"] == -0.5


def test_without_its_passage_an_answer_may_still_be_sure():
    questions = QUESTIONS[:2]
    found = changed_knowledge.deleted(
        said("Archer", "Bob Baker", p=0.8), said("x", "Bob Baker", p=0.2), questions
    )["methods"]["m"]
    assert (found["before"]["em"]["mean"], found["after"]["em"]["mean"]) == (1, 0.5)
    assert found["after"]["probability"]["mean"] == pytest.approx(0.2)


def test_true_false_and_neither_are_all_there_is():
    kept, passages, false = changed_knowledge.counterfeits(QUESTIONS, CORPUS)
    answers = said("Bob Baker", "nobody", weights=[(passages[0].id, 0.75), ("b", 0.25)])
    found = changed_knowledge.deceived(answers, kept, passages, false)["methods"]["m"]
    assert [found[which]["mean"] for which in ("true", "false", "neither")] == [0, 0.5, 0.5]
    assert found["weight"]["mean"] == pytest.approx(0.375)


def test_unchanged_questions_are_about_changed_articles_or_not():
    changed = [now for _, now in miniwiki.changed_questions("test")]
    found = changed_knowledge.unchanged(changed, near=5, far=7)
    assert [len(found["near"]), len(found["far"])] == [5, 7]
    moved = {p.id for a in miniwiki.articles() if a.changes for p in a.passages}
    assert all(q.gold_passage in moved for q in found["near"])
    assert not any(q.gold_passage in moved for q in found["far"])
    assert not {q.text for q in (*found["near"], *found["far"])} & {q.text for q in changed}
