"""MiniWiki: its parser on small inputs, and every rule of the encyclopaedia on every file."""

import hashlib
import re
from collections import Counter
from importlib import resources

import pytest

from ragbook.corpus import Passage, Question, load_corpus, load_questions, miniwiki
from ragbook.errors import InputError

FOLDER = resources.files("ragbook.corpus").joinpath("miniwiki")
FILES = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".md"))


def test_parse():
    source = (
        "# Louis XIV\n\nFirst passage.\n\nQ: Who?\nA: the king | Louis\nQ: When?\nA: 1638\n\n"
        "Second passage.\r\n\n# Évora\nThird passage."
    )
    king, city = miniwiki.parse(source, "monarchs")
    assert king.passages == (
        Passage("louis-xiv-1", "Louis XIV", "First passage."),
        Passage("louis-xiv-2", "Louis XIV", "Second passage."),
    )
    assert king.questions == (
        Question("Who?", ("the king", "Louis"), "louis-xiv-1"),
        Question("When?", ("1638",), "louis-xiv-1"),
    )
    assert (king.title, king.family, king.split) == ("Louis XIV", "monarchs", "train")
    assert city.passages == (Passage("evora-1", "Évora", "Third passage."),)
    assert miniwiki.parse(source, "heldout-kings")[0].split == "heldout"
    assert miniwiki.parse("\n", "empty") == ()


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("# T\np\nQ: Who?\n\nA: he", 4),
        ("# T\np\nQ: Who?\nQ: When?", 4),
        ("# T\nQ: Who?\nA: he", 2),
        ("# T\np\nQ: Who?\nA: he\n# U\nQ: Where?\nA: there", 6),
        ("# T\np\nA: he", 3),
        ("# T\np\nQ: Who?\nA: he | ", 4),
        ("p", 1),
    ],
)
def test_a_source_that_does_not_fit_is_told_by_line(source, line):
    with pytest.raises(InputError, match=f"rivers.md, line {line}:"):
        miniwiki.parse(source, "rivers")


def test_a_last_question_without_answer_is_refused():
    with pytest.raises(InputError, match="last question"):
        miniwiki.parse("# T\np\nQ: Who?", "rivers")


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_a_file_is_lost(name):
    lines = FOLDER.joinpath(name).read_text(encoding="utf-8").splitlines()
    kinds = Counter(line[:2] if line[:2] in ("# ", "Q:", "A:") else "p" for line in lines if line)
    of_file = [a for a in miniwiki.articles() if f"{a.family}.md" == name]
    assert len(of_file) == kinds["# "] > 0
    assert sum(len(article.passages) for article in of_file) == kinds["p"]
    assert sum(len(article.questions) for article in of_file) == kinds["Q:"] == kinds["A:"]


@pytest.mark.parametrize("name", FILES)
def test_the_passages_of_a_file_keep_the_rules(name):
    for article in miniwiki.articles():
        if f"{article.family}.md" == name:
            assert article.passages, article.title
            for passage in article.passages:
                assert 45 <= len(passage.text.split()) <= 100, passage.id
                assert passage.title == article.title


@pytest.mark.parametrize("name", FILES)
def test_the_questions_of_a_file_keep_the_rules(name):
    for article in miniwiki.articles():
        if f"{article.family}.md" != name:
            continue
        passages = {passage.id: passage.text for passage in article.passages}
        asked = Counter(question.gold_passage for question in article.questions)
        if name.startswith("heldout-"):
            assert not asked
            continue
        assert all(asked[passage_id] >= 4 for passage_id in passages), article.title
        for question in article.questions:
            assert question.text.endswith("?"), question
            first = re.escape(question.answers[0])
            assert question.gold_passage is not None
            standing = re.compile(rf"(?<!\w){first}(?!\w)", re.IGNORECASE)
            assert standing.search(passages[question.gold_passage]), question
            assert not standing.search(question.text), question
            assert len(set(question.answers)) == len(question.answers), question


def test_ids_titles_passages_and_questions_are_unique():
    articles = miniwiki.articles()
    passages = [passage for article in articles for passage in article.passages]
    questions = [question.text.lower() for article in articles for question in article.questions]
    for things in (
        [article.title for article in articles],
        [passage.id for passage in passages],
        [passage.text for passage in passages],
        questions,
    ):
        assert [thing for thing, count in Counter(things).items() if count > 1] == []


def test_the_corpus_holds_every_article_but_the_held_out():
    heldout = miniwiki.heldout()
    assert heldout
    assert all(article.family.startswith("heldout-") for article in heldout)
    ids = {passage.id for passage in load_corpus("miniwiki")}
    assert ids == {
        passage.id
        for article in miniwiki.articles()
        if not article.family.startswith("heldout-")
        for passage in article.passages
    }
    assert all(
        re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[1-9][0-9]*", passage_id) for passage_id in ids
    )


def test_the_splits_are_by_article_and_whole():
    corpus = load_corpus("miniwiki")
    titles: dict[str, set[str]] = {}
    total = 0
    for split in miniwiki.SPLITS:
        found = load_questions("miniwiki", split)
        assert (found.name, found.split) == ("miniwiki", split)
        assert len(found) > 0
        total += len(found)
        titles[split] = {corpus.get(q.gold_passage or "").title for q in found}
        for title in titles[split]:
            # The rule again, in other arithmetic: 16 hexadecimal digits as a fraction.
            fraction = float.fromhex(f"0x0.{hashlib.sha256(title.encode()).hexdigest()[:16]}p0")
            assert split == ("train", "dev", "test")[(fraction >= 0.60) + (fraction >= 0.72)]
    assert not titles["train"] & titles["dev"]
    assert not titles["train"] & titles["test"]
    assert not titles["dev"] & titles["test"]
    assert total == sum(len(article.questions) for article in miniwiki.articles())


def test_the_test_split_is_the_default_and_its_head_is_mixed():
    asked = load_questions("miniwiki")
    assert asked.split == "test"
    family = {p.id: a.family for a in miniwiki.articles() for p in a.passages}
    assert len({family[question.gold_passage or ""] for question in asked.head(50)}) > 8


def test_heldout_text_is_split_for_tuning_and_reporting():
    every = miniwiki.heldout()
    dev, test = miniwiki.heldout("dev"), miniwiki.heldout("test")
    assert {a.title for a in dev} | {a.title for a in test} == {a.title for a in every}
    assert not {a.title for a in dev} & {a.title for a in test}
    assert len(dev) == len({a.family for a in every})
