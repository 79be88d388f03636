"""Claims and clues: what is true of every one of them, and that the splits share nothing."""

import re
from collections import Counter

import pytest
from experiments import claims_and_clues_data as tasks

from ragbook.corpus import miniwiki
from ragbook.errors import InputError

SPLITS = ("dev", "test")


def words(text):
    return re.findall(r"\w+", text.lower())


def asked(split):
    """The questions by passage."""
    out = {}
    for question in miniwiki.questions(split):
        out.setdefault(question.gold_passage, []).append(question)
    return out


@pytest.mark.parametrize("split", SPLITS)
def test_half_of_the_claims_are_true(split):
    labels = Counter(claim.answers for claim in tasks.claims(split))
    assert set(labels) == {("true",), ("false",)}
    assert abs(labels["true",] - labels["false",]) <= 1


@pytest.mark.parametrize("split", SPLITS)
def test_a_true_claim_holds_an_answer_and_a_false_one_says_what_its_passage_does_not(split):
    corpus, questions = miniwiki.corpus(), asked(split)
    for claim in tasks.claims(split):
        passage = corpus.get(str(claim.gold_passage))
        answers = {a for q in questions[passage.id] for a in q.answers}
        said = f" {' '.join(words(claim.text))} "
        held = [a for a in answers if f" {' '.join(words(re.sub('^[Tt]he ', '', a)))} " in said]
        new = set(words(claim.text)) - set(words(f"{passage.title} {passage.text}"))
        if claim.answers == ("true",):
            assert held, claim
            asks = {w for q in questions[passage.id] for w in words(q.text)}
            assert new <= asks | {w for a in answers for w in words(a)}, claim
        else:
            assert new, claim


def test_false_claims_draw_from_answers_of_their_own_split():
    """A word that makes a test claim false stands in a test question's answer."""
    for split in SPLITS:
        questions = asked(split)
        own = {w for qs in questions.values() for q in qs for a in q.answers for w in words(a)}
        corpus = miniwiki.corpus()
        for claim in tasks.claims(split):
            passage = corpus.get(str(claim.gold_passage))
            here = [w for q in questions[passage.id] for w in words(q.text)]
            known = set(words(f"{passage.title} {passage.text}")) | set(here)
            assert set(words(claim.text)) - known <= own, claim


def test_another_seed_makes_other_claims_false():
    first, again, other = (tasks.claims("dev", seed) for seed in (0, 0, 1))
    assert first.sha256 == again.sha256
    assert len(first) == len(other)
    changed = sum(a.answers != b.answers for a, b in zip(first, other, strict=True))
    assert 0.4 < changed / len(first) < 0.6


@pytest.mark.parametrize("make", [tasks.claims, tasks.clues])
def test_no_two_splits_share_a_passage(make):
    seen = [{q.gold_passage for q in make(split)} for split in SPLITS]
    questions = {q.gold_passage for q in miniwiki.questions("train")}
    assert not seen[0] & seen[1]
    # A question may need a passage of another split beside its own; its gold one is in one split.
    assert len((seen[0] | seen[1]) & questions) <= sum(
        q.second_passage is not None for split in SPLITS for q in miniwiki.questions(split)
    )


@pytest.mark.parametrize("split", SPLITS)
def test_a_clue_is_a_name_with_the_questions_that_ask_for_it(split):
    questions = {q.text: q for q in miniwiki.questions(split)}
    for clue in tasks.clues(split):
        assert clue.text[0].isupper() or clue.text[0].isdigit() or tasks.kind(clue.text)
        for text in clue.answers:
            asks = questions[text]
            assert asks.gold_passage == clue.gold_passage
            assert clue.text.split(" (")[0] in asks.answers[0]


def test_a_name_that_several_passages_hold_comes_with_the_title():
    texts = [f" {' '.join(words(f'{p.title} {p.text}'))} " for p in miniwiki.corpus()]
    for clue in tasks.clues("dev"):
        held = sum(f" {' '.join(words(clue.text))} " in text for text in texts)
        assert held <= 1 or clue.text in miniwiki.corpus().get(str(clue.gold_passage)).title


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("1973", "year"),
        ("30 May 1431", "date"),
        ("May 1431", "date"),
        ("319 metres", "number"),
        ("forty-six", "number"),
        ("Ludwig van Beethoven", "name"),
        ("the Concert for Bangladesh", "name"),
        ("a bear", None),
        ("May", None),
        ("Antarctic icefish", None),
    ],
)
def test_kinds_of_answers(answer, kind):
    assert tasks.kind(answer) == kind


def test_sentences_do_not_end_at_initials():
    text = "J. S. Fry & Sons of St. Ives made it. It sold in 1847. Was it good?"
    assert tasks.sentences(text) == [
        "J. S. Fry & Sons of St. Ives made it.",
        "It sold in 1847.",
        "Was it good?",
    ]


def test_there_is_no_other_split():
    with pytest.raises(InputError, match="splits"):
        tasks.claims("validation")
