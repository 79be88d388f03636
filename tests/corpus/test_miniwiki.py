"""MiniWiki: its parser on small inputs, and every rule of the encyclopaedia on every file."""

import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from importlib import resources

import pytest

from ragbook.corpus import Passage, Question, load_corpus, load_questions, miniwiki
from ragbook.errors import InputError
from ragbook.retrieval.bm25 import terms
from tests.corpus.standing_alone import dangling, names_nothing

FOLDER = resources.files("ragbook.corpus").joinpath("miniwiki")
FILES = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".md"))
LINE = re.compile(r"(# |Q: |I: |A: |A \d{4}: |U: |Near: |And: |Title \d{4}: |\d{4}: )?.*")


def articles_of(name: str, edition: str = miniwiki.CURRENT) -> list[miniwiki.Article]:
    return [a for a in miniwiki.articles(edition) if f"{a.family}.md" == name]


def indexed() -> list[miniwiki.Article]:
    return [a for a in miniwiki.articles() if a.split != "heldout"]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def stands_in(answer: str, text: str) -> bool:
    return f" {' '.join(words(answer))} " in f" {' '.join(words(text))} "


def test_parse():
    source = (
        "# Louis XIV\n\nFirst passage.\n\nQ: Who?\nA: the king | Louis\nQ: When?\nA: 1638\n"
        "Near: evora-1\nI: Who is it?\nA: he\nU: Why?\n\n"
        "Second passage.\r\nQ: Whence?\nA: there\nAnd: louis-xiv-1\n\n# Évora\nThird passage."
    )
    king, city = miniwiki.parse(source, "monarchs")
    assert king.passages == (
        Passage("louis-xiv-1", "Louis XIV", "First passage."),
        Passage("louis-xiv-2", "Louis XIV", "Second passage."),
    )
    assert king.questions == (
        Question("Who?", ("the king", "Louis"), "louis-xiv-1"),
        Question("When?", ("1638",), "louis-xiv-1", rival_passage="evora-1"),
        Question("Who is it?", ("he",), "louis-xiv-1", indirect=True),
        Question("Whence?", ("there",), "louis-xiv-2", second_passage="louis-xiv-1"),
    )
    assert [q.kind for q in king.questions] == ["plain", "confusable", "indirect", "two-passage"]
    assert king.unanswerable == (Question("Why?", (), None, "louis-xiv-1"),)
    assert (king.title, king.family, king.split) == ("Louis XIV", "monarchs", "train")
    assert (king.changes, city.changes) == (False, False)
    assert city.passages == (Passage("evora-1", "Évora", "Third passage."),)
    assert miniwiki.parse(source, "heldout-kings")[0].split == "heldout"
    assert miniwiki.parse("\n", "empty") == ()


def test_parse_editions():
    source = (
        "# Eswatini\nTitle 2012: Swaziland\n\n2012: Swaziland is a kingdom.\n"
        "2022: Eswatini is a kingdom.\n\nQ: What is its name?\nA 2012: Swaziland | Old\n"
        "A 2022: Eswatini\nQ: What is it?\nA: a kingdom\n\nIt has hills.\n\n"
        "2022: New.\n2012: Old.\n\nQ: Age?\nA 2022: new\nA 2012: old\n"
    )
    (now,) = miniwiki.parse(source, "states")
    (then,) = miniwiki.parse(source, "states", "2012")
    assert (then.title, now.title) == ("Swaziland", "Eswatini")
    assert [p.text for p in now.passages] == ["Eswatini is a kingdom.", "It has hills.", "New."]
    assert [p.text for p in then.passages] == ["Swaziland is a kingdom.", "It has hills.", "Old."]
    assert [p.id for p in then.passages] == [p.id for p in now.passages]
    assert [p.id for p in now.passages] == ["eswatini-1", "eswatini-2", "eswatini-3"]
    assert [q.answers for q in now.questions] == [("Eswatini",), ("a kingdom",), ("new",)]
    assert [q.answers for q in then.questions] == [("Swaziland", "Old"), ("a kingdom",), ("old",)]
    assert now.changes
    assert now.split == then.split != "train"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("# T\np\nQ: Who?\n\nA: he", 4),
        ("# T\np\nQ: Who?\nQ: When?", 4),
        ("# T\nQ: Who?\nA: he", 2),
        ("# T\np\nQ: Who?\nA: he\n# U\nQ: Where?\nA: there", 6),
        ("# T\np\nA: he", 3),
        ("# T\np\nNear: t-1", 3),
        ("# T\nU: Who?", 2),
        ("# T\np\nQ: Who?\nA: he | ", 4),
        ("# T\np\nQ: Who?\nA: he\nA: she", 5),
        ("# T\n2013: p", 2),
        ("# T\n2012: p", 2),
        ("# T\n2012: p\n2012: q", 2),
        ("# T\n2012: p\n2022: q\nQ: Who?\nA 2012: he", 4),
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
    lines = [x for x in FOLDER.joinpath(name).read_text(encoding="utf-8").splitlines() if x.strip()]
    kinds = Counter(re.sub(r" \d{4}", "", LINE.fullmatch(x)[1] or "p") for x in lines)  # type: ignore[index]
    questions = [q for a in articles_of(name) for q in a.questions]
    changed = sum(n for kind, n in kinds.items() if re.fullmatch(r"\d{4}: ", kind))
    both = sum(line.startswith("A 2022: ") for line in lines)  # such questions have two lines
    assert len(articles_of(name)) == kinds["# "] > 0
    assert sum(len(a.passages) for a in articles_of(name)) == kinds["p"] + changed // 2
    assert len(questions) == kinds["Q: "] + kinds["I: "] == kinds["A: "] - both
    assert sum(q.indirect for q in questions) == kinds["I: "]
    assert sum(q.rival_passage is not None for q in questions) == kinds["Near: "]
    assert sum(q.kind == "two-passage" for q in questions) == kinds["And: "]
    assert sum(len(a.unanswerable) for a in articles_of(name)) == kinds["U: "]


@pytest.mark.parametrize("edition", miniwiki.EDITIONS)
@pytest.mark.parametrize("name", FILES)
def test_the_passages_of_a_file_keep_the_rules(name, edition):
    for article in articles_of(name, edition):
        assert article.passages, article.title
        for passage in article.passages:
            assert 40 <= len(passage.text.split()) <= 100, passage.id
            assert passage.title == article.title


@pytest.mark.parametrize("edition", miniwiki.EDITIONS)
@pytest.mark.parametrize("name", FILES)
def test_the_questions_of_a_file_keep_the_rules(name, edition):
    known = {p.id for a in miniwiki.articles() if a.split != "heldout" for p in a.passages}
    for article in articles_of(name, edition):
        passages = {passage.id: passage.text for passage in article.passages}
        asked = Counter(question.gold_passage for question in article.questions)
        if name.startswith("heldout-"):
            assert not asked
            assert not article.unanswerable
            continue
        assert all(asked[passage_id] >= 3 for passage_id in passages), article.title
        for question in article.questions:
            assert question.text.endswith("?"), question
            assert question.gold_passage is not None
            assert stands_in(question.answers[0], passages[question.gold_passage]), question
            if question.kind != "two-passage":  # which may choose between two that it names
                assert not stands_in(question.answers[0], question.text), question
            assert len(set(question.answers)) == len(question.answers), question
            others = {question.rival_passage, question.second_passage} - {None}
            assert len(others) < 2, question
            assert others <= known - {question.gold_passage}, question
        for question in article.unanswerable:
            assert question.text.endswith("?"), question


def test_there_is_as_much_as_the_data_card_says():
    articles = miniwiki.articles()
    questions = {split: load_questions("miniwiki", split) for split in miniwiki.SPLITS}
    kinds = Counter(q.kind for split in miniwiki.SPLITS for q in questions[split])
    assert len(indexed()) >= 600
    assert len(load_corpus("miniwiki")) >= 1800
    assert len(miniwiki.heldout()) >= 60
    assert sum(article.changes for article in articles) >= 40
    assert sum(map(len, questions.values())) >= 6000
    assert len(questions["test"]) >= 1000
    assert kinds["confusable"] >= 500
    assert kinds["two-passage"] >= 250
    assert len(miniwiki.unanswerable()) >= 150


def test_a_third_of_the_questions_share_no_word_with_the_sentence_that_answers():
    """Content words, by their stems; the names that stand in the sentence or the title are the
    entities, which a question cannot do without."""
    corpus = load_corpus("miniwiki")
    questions = [q for split in miniwiki.SPLITS for q in load_questions("miniwiki", split)]
    sentences, names = [], []
    for question in questions:
        passage = corpus.get(question.gold_passage or "")
        pieces = re.split(r"(?<=[.!?;]) ", passage.text)
        sentence = next((s for s in pieces if stands_in(question.answers[0], s)), passage.text)
        sentences.append(sentence)
        capitals = re.findall(r"\b[A-Z0-9]\w*", f"{sentence} {passage.title}")
        names.append(" ".join([*capitals, passage.title]))
    stems = [map(set, terms(texts)) for texts in ([q.text for q in questions], sentences, names)]
    free = sum(not (asked & said) - named for asked, said, named in zip(*stems, strict=True))
    assert free >= len(questions) / 3


def test_questions_stand_alone():
    """What rules can see of it; the questions were read for the rest. A question about clouds or
    the liver names its subject without a capital letter and perhaps not with its title's words, so
    that some findings remain."""
    titles = {p.id: a.title for a in indexed() for p in a.passages}
    asked = {split: list(load_questions("miniwiki", split)) for split in miniwiki.SPLITS}
    for split, questions in asked.items():
        loose = [q.text for q in questions if dangling(q)]
        assert len(loose) < 0.01 * len(questions), split
        direct = [q for q in questions if not q.indirect and q.second_passage is None]
        unnamed = [q.text for q in direct if names_nothing(q, titles[q.gold_passage or ""])]
        assert len(unnamed) < 0.05 * len(direct), split
        indirect = sum(q.kind == "indirect" for q in questions)
        assert 0.02 * len(questions) < indirect < 0.25 * len(questions), split


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Who was walking beside him with Abha?", True),
        ("Where did he die?", True),
        ("Which river has its source in the Black Forest?", False),
        ("Who lost his life at Trafalgar?", False),
        ("What did Napoleon call his horse?", False),
        ("What is the name of this?", False),
        ("When did the latter fall?", True),
    ],
)
def test_a_pronoun_without_a_noun_is_found(text, found):
    assert bool(dangling(Question(text, ("x",)))) == found


def test_a_question_without_a_name_is_found():
    assert names_nothing(Question("Which officer won?", ("x",)), "William McKinley")
    assert not names_nothing(Question("Which officer won at Manila?", ("x",)), "William McKinley")
    assert not names_nothing(Question("Who named the clouds?", ("x",)), "Cloud")


def test_ids_titles_passages_and_questions_are_unique():
    for edition in miniwiki.EDITIONS:
        articles = miniwiki.articles(edition)
        passages = [passage for article in articles for passage in article.passages]
        questions = [q for a in articles for q in (*a.questions, *a.unanswerable)]
        for things in (
            [article.title for article in articles],
            [passage.id for passage in passages],
            [passage.text for passage in passages],
            [" ".join(words(question.text)) for question in questions],
        ):
            assert [thing for thing, count in Counter(things).items() if count > 1] == []


def test_no_two_passages_nearly_say_the_same():
    """Exact Jaccard similarity of the sets of four words in a row, held-out text included."""
    shingles: dict[str, set[tuple[str, ...]]] = {}
    where: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for article in miniwiki.articles():
        for passage in article.passages:
            row = words(passage.text)
            shingles[passage.id] = set(zip(*(row[i:] for i in range(4)), strict=False))
            for shingle in shingles[passage.id]:
                where[shingle].append(passage.id)
    shared = Counter(
        pair for ids in where.values() if len(ids) > 1 for pair in itertools.combinations(ids, 2)
    )
    near = {
        (a, b): n / len(shingles[a] | shingles[b])
        for (a, b), n in shared.items()
        if n / len(shingles[a] | shingles[b]) > 0.1
    }
    assert near == {}


def skeleton(sentence: str) -> str:
    """The sentence with its names and numbers taken out: what a template would leave the same."""
    return re.sub(
        r"(\b(N|#)\b\W*)+", "N ", re.sub(r"\b[A-Z]\w*", "N", re.sub(r"\d[\d.,]*", "#", sentence))
    )


def test_no_sentence_is_a_template_filled_in_twice():
    seen: dict[str, list[str]] = defaultdict(list)
    for article in miniwiki.articles():
        for passage in article.passages:
            for sentence in re.split(r"(?<=[.!?]) ", passage.text):
                seen[skeleton(sentence)].append(passage.id)
    assert [ids for pattern, ids in seen.items() if len(ids) > 1 and pattern.count(" ") > 3] == []


def test_no_fact_of_a_later_split_is_asked_in_an_earlier_one():
    """No question of train or dev has the answer and nearly the words of one of a later split."""
    rows = [
        (split, q, set(stems), " ".join(words(q.answers[0])))
        for split in miniwiki.SPLITS
        for q, stems in zip(
            load_questions("miniwiki", split),
            terms([q.text for q in load_questions("miniwiki", split)]),
            strict=True,
        )
    ]
    by_answer = defaultdict(list)
    for row in rows:
        by_answer[row[3]].append(row)
    leaks = [
        (a[1].text, b[1].text)
        for group in by_answer.values()
        for a, b in itertools.combinations(group, 2)
        if a[0] != b[0] and len(a[2] & b[2]) > 0.6 * len(a[2] | b[2])
    ]
    assert leaks == []


def folded(word: str) -> str:
    return unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode().lower()


def test_every_entity_is_spelled_one_way():
    """A name has one spelling: with its accents everywhere or nowhere, and in British spelling."""
    forms: dict[str, set[str]] = defaultdict(set)
    american = re.compile(
        r"\b(colors?|centers?|meters?|kilometers?|liters?|fibers?|theaters?|gray|aluminum|sulfur|"
        r"harbors?|honor|labor|neighbors?|traveled|traveler|defense|plow|catalog|jewelry|mold)\b"
    )
    found = []
    for article in miniwiki.articles():
        for text in (*(p.text for p in article.passages), *(q.text for q in article.questions)):
            found += american.findall(text)
            for name in re.findall(r"(?<!^)(?<![.?!] )\b[^\W\d_]{4,}\b", text):
                if name[0].isupper():
                    forms[folded(name)].add(name if name[1:].islower() else name.title())
    assert found == []
    assert {k: v for k, v in forms.items() if len(v) > 1 and k not in TWO_SPELLINGS.split()} == {}


TWO_SPELLINGS = (
    "alvarez antonio bove breda bronte burger cortes dvorak edith eugene eugenio felix "
    "francois gunter hotel jesus laszlo leonard luis maria marie marta martin napoleon nino opera "
    "orleans pantheon raphael samuelsson sebastian shuji simon sofia theatre theodore ursula"
)
"""Words that rightly stand in two spellings: two different names, or a title in its language."""


def test_the_corpus_holds_every_article_but_the_held_out():
    heldout = miniwiki.heldout()
    assert heldout
    assert all(article.family.startswith("heldout-") for article in heldout)
    for name, edition in miniwiki.NAMES.items():
        ids = {passage.id for passage in load_corpus(name)}
        assert load_corpus(name).name == name
        assert ids == {
            passage.id
            for article in miniwiki.articles(edition)
            if not article.family.startswith("heldout-")
            for passage in article.passages
        }
        assert all(
            re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*-[1-9][0-9]*", passage_id) for passage_id in ids
        )


def test_the_editions_differ_where_articles_change_and_nowhere_else():
    then, now = load_corpus("miniwiki-2012"), load_corpus("miniwiki")
    assert [p.id for p in then] == [p.id for p in now]
    different = {a.id for a, b in zip(then, now, strict=True) if a != b}
    changing = [a for a in miniwiki.articles() if a.changes]
    assert different <= {p.id for a in changing for p in a.passages}
    assert all(different & {p.id for p in a.passages} for a in changing)
    for split in miniwiki.SPLITS:
        pairs = miniwiki.changed_questions(split)
        assert bool(pairs) == (split != "train")
        for earlier, current in pairs:
            assert earlier.text == current.text
            assert earlier.gold_passage == current.gold_passage in different
            # The other edition's answer is right in neither the other's list nor its passage.
            assert not {a.lower() for a in earlier.answers} & {a.lower() for a in current.answers}
    texts = [load_questions(name, "test") for name in miniwiki.NAMES]
    assert [q.text for q in texts[0]] == [q.text for q in texts[1]]


def test_the_splits_are_by_article_and_whole():
    of_passage = {p.id: a for a in miniwiki.articles() for p in a.passages}
    total = 0
    order = miniwiki.SPLITS.index
    for split in miniwiki.SPLITS:
        found = load_questions("miniwiki", split)
        assert (found.name, found.split) == ("miniwiki", split)
        assert len(found) > 0
        total += len(found)
        for question in found:
            needed = [of_passage[i] for i in (question.gold_passage, question.second_passage) if i]
            splits = []
            for article in needed:
                # The rule again, in other arithmetic: 16 hexadecimal digits as a fraction.
                # (The current title is the one that counts.)
                digest = hashlib.sha256(article.title.encode()).hexdigest()[:16]
                fraction = float.fromhex(f"0x0.{digest}p0")
                if article.changes:
                    splits.append(("dev", "test")[fraction >= 0.30])
                else:
                    splits.append(miniwiki.SPLITS[(fraction >= 0.70) + (fraction >= 0.80)])
                assert splits[-1] == article.split
            assert split == max(splits, key=order), question
    assert total == sum(len(article.questions) for article in miniwiki.articles())


def test_the_unanswerable_are_in_no_split_and_have_no_answer():
    asked = {q.text for split in miniwiki.SPLITS for q in load_questions("miniwiki", split)}
    corpus = load_corpus("miniwiki")
    for question in miniwiki.unanswerable():
        assert question.text not in asked
        assert (question.answers, question.gold_passage) == ((), None)
        assert corpus.get(question.rival_passage or "")


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
