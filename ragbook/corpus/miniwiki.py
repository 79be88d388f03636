"""MiniWiki, the encyclopaedia that ships with the book.

Its source is the Markdown beside this module, one file for each family of articles that are easily
confused; `MINIWIKI.md` is its data card and `CONTRIBUTING-MINIWIKI.md` says how to write for it.
Each line is one of these:

===================  ===============================================================================
``# Title``          begins an article
any other text       a passage of the article
``Q: question?``     asks for a fact of the passage above, and names what it asks about
``I: question?``     ... or describes what it asks about, so that a reader must find out the name
``A: a | b``         its answer, which is in the passage, and other answers that count as right
``Near: id``         ... and the passage `id` is similar but does not answer it
``And: id``          ... and the passage `id` is needed too
``U: question?``     a question about the passage's subject that no passage of MiniWiki answers
``2012: text``       the passage as it reads in the edition of that year; one line an edition
``A 2012: a | b``    the answer that is right in that edition; one line an edition
``Title 2012: T``    the title in that edition, below the line ``# Title``
===================  ===============================================================================

Two editions, of the end of 2012 and of the end of 2022, differ in the articles whose facts changed.
Files named ``heldout-*`` hold running text without questions, which is in no index and serves to
test language models.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TypeVar

from ragbook.corpus.types import Corpus, Passage, Question, QuestionSet
from ragbook.errors import InputError

SPLITS = ("train", "dev", "test")
EDITIONS = ("2012", "2022")
CURRENT = EDITIONS[-1]
"""The default edition."""

_T = TypeVar("_T")
_LINE = re.compile(r"(?:(Title|A) (\d{4})|(Q|I|A|Near|And|U)|(\d{4})): (.*)")


@dataclass(frozen=True)
class Article:
    """An article.

    `split` is "train", "dev", "test" or "heldout"; `changes` is whether its text differs between
    editions. `unanswerable` are questions without an answer: no passage answers them, although
    their `rival_passage` seems to.
    """

    title: str
    family: str
    split: str
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]
    unanswerable: tuple[Question, ...] = ()
    changes: bool = False


def split_of(title: str, changes: bool = False) -> str:
    """The split of an article's questions. All questions of an article are in one split, so that no
    two splits ask about the same passage. The title's hash decides, so that a new article does not
    change the split of another.

    The first 8 bytes of the title's SHA-256 are read as a fraction of 1: below 0.70 is train, below
    0.80 dev, else test. An article that changes between editions is never in train (below 0.30 is
    dev, else test), so that a reader cannot have learned its answers by heart.
    """
    digest = hashlib.sha256(title.encode("utf-8")).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if changes:
        return "dev" if fraction < 0.30 else "test"
    return "train" if fraction < 0.70 else "dev" if fraction < 0.80 else "test"


def slug(title: str) -> str:
    """The title in lower-case ASCII letters, digits and hyphens: ``Louis XIV`` is ``louis-xiv``."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


@dataclass
class _Asked:
    """A question as it is read; `answers` by edition, or under "" for all editions."""

    text: str
    where: str
    answers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rival: str | None = None
    second: str | None = None
    indirect: bool = False


@dataclass
class _Slot:
    """A passage as it is read; `texts` by edition, or under "" for all editions."""

    where: str
    texts: dict[str, str] = field(default_factory=dict)
    asked: list[_Asked] = field(default_factory=list)
    unanswerable: list[str] = field(default_factory=list)


@dataclass
class _Draft:
    """An article as it is read; `titles` by edition where it had another name."""

    title: str
    titles: dict[str, str] = field(default_factory=dict)
    slots: list[_Slot] = field(default_factory=list)

    def article(self, family: str, edition: str) -> Article:
        title = self.titles.get(edition, self.title)
        changes = any("" not in slot.texts for slot in self.slots)
        passages: list[Passage] = []
        questions: list[Question] = []
        unanswerable: list[Question] = []
        for number, slot in enumerate(self.slots, 1):
            # The id comes from the current title, so that a passage has one id in all editions.
            gold = f"{slug(self.title)}-{number}"
            passages.append(Passage(gold, title, _of_edition(slot.texts, edition, slot.where)))
            for q in slot.asked:
                answers = _of_edition(q.answers, edition, q.where)
                questions.append(Question(q.text, answers, gold, q.rival, q.second, q.indirect))
            unanswerable += [Question(text, (), None, gold) for text in slot.unanswerable]
        held_out = family.startswith("heldout-")
        return Article(
            title,
            family,
            "heldout" if held_out else split_of(self.title, changes),
            tuple(passages),
            tuple(questions),
            tuple(unanswerable),
            changes,
        )


def _of_edition(lines: Mapping[str, _T], edition: str, where: str) -> _T:
    """The line for an edition, after checking that there is one line for all or one for each."""
    if set(lines) not in ({""}, set(EDITIONS)):
        raise InputError(
            f"{where}: give one line for all editions or one for each of {' and '.join(EDITIONS)}."
        )
    return lines[edition] if edition in lines else lines[""]


def parse(text: str, family: str, edition: str = CURRENT) -> tuple[Article, ...]:
    """The articles of one source file. Raises InputError that names the line with a fault."""
    drafts: list[_Draft] = []
    waiting: _Asked | None = None  # a question whose answer must come next
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        where = f"miniwiki/{family}.md, line {number}"
        match = _LINE.fullmatch(line)
        kind, year, value = "", "", line
        if match:
            kind, year = match[1] or match[3] or "", match[2] or match[4] or ""
            value = match[5].strip()
        if waiting and kind != "A":
            raise InputError(f"{where}: the line after a question must be a line 'A: '.")
        if not line:
            continue
        if year and year not in EDITIONS:
            raise InputError(f"{where}: the editions are {' and '.join(EDITIONS)}, not {year}.")
        if line.startswith("# "):
            drafts.append(_Draft(line[2:].strip()))
            continue
        if not drafts:
            raise InputError(f"{where}: a passage must come after a line '# Title'.")
        draft = drafts[-1]
        slot = draft.slots[-1] if draft.slots else None
        if kind == "Title":
            draft.titles[year] = value
        elif not kind:
            open_for_year = slot and year and "" not in slot.texts and year not in slot.texts
            if slot is None or not open_for_year or slot.asked:
                slot = _Slot(where)
                draft.slots.append(slot)
            slot.texts[year] = value
        elif slot is None:
            raise InputError(f"{where}: a question must come after its passage.")
        elif kind in ("Q", "I"):
            waiting = _Asked(value, where, indirect=kind == "I")
            slot.asked.append(waiting)
        elif kind == "U":
            slot.unanswerable.append(value)
        elif not slot.asked:
            raise InputError(f"{where}: a line '{kind}: ' must come after its question.")
        elif kind == "A":
            answers = tuple(answer.strip() for answer in value.split("|"))
            if not all(answers):
                raise InputError(f"{where}: an answer is empty.")
            if year in slot.asked[-1].answers:
                raise InputError(f"{where}: the question has its answer already.")
            slot.asked[-1].answers[year] = answers
            waiting = None
        elif kind == "Near":
            slot.asked[-1].rival = value
        else:
            slot.asked[-1].second = value
    if waiting:
        raise InputError(f"miniwiki/{family}.md: the last question has no answer.")
    return tuple(draft.article(family, edition) for draft in drafts)


@cache
def articles(edition: str = CURRENT) -> tuple[Article, ...]:
    """All articles, held-out ones too, files in the order of their names."""
    folder = resources.files("ragbook.corpus").joinpath("miniwiki")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".md")), key=lambda f: f.name)
    return tuple(
        article
        for file in files
        for article in parse(
            file.read_text(encoding="utf-8"), file.name.removesuffix(".md"), edition
        )
    )


def _name(edition: str) -> str:
    return "miniwiki" if edition == CURRENT else f"miniwiki-{edition}"


NAMES = {_name(edition): edition for edition in reversed(EDITIONS)}
"""The names of the editions as corpora and question sets: "miniwiki" is the current one."""


@cache
def corpus(edition: str = CURRENT) -> Corpus:
    """The passages to index: those of all articles that are not held out."""
    indexed = (a for a in articles(edition) if a.split != "heldout")
    return Corpus(_name(edition), (p for a in indexed for p in a.passages))


def _mixed(questions: list[Question]) -> list[Question]:
    """The questions in the order of their texts' SHA-256, so that the first n are a random sample
    of all families."""
    return sorted(questions, key=lambda q: hashlib.sha256(q.text.encode("utf-8")).digest())


@cache
def questions(split: str = "test", edition: str = CURRENT) -> QuestionSet:
    """The questions of a split, families mixed.

    A question that needs passages of two splits belongs to the later of them (train, dev, test), so
    that an earlier split never asks about a passage of a later one.
    """
    if split not in SPLITS:
        raise InputError(f"MiniWiki has the splits {', '.join(SPLITS)}, not {split!r}.")
    splits = {p.id: a.split for a in articles(edition) if a.split in SPLITS for p in a.passages}
    of_split = [
        q
        for article in articles(edition)
        for q in article.questions
        if max(article.split, splits.get(q.second_passage or "", "train"), key=SPLITS.index)
        == split
    ]
    return QuestionSet(_name(edition), split, _mixed(of_split))


@cache
def unanswerable() -> tuple[Question, ...]:
    """Questions that no passage answers, families mixed. A good method gives little probability to
    any answer. They have no answers and are in no split."""
    return tuple(_mixed([q for article in articles() for q in article.unanswerable]))


def changed_questions(split: str = "test") -> tuple[tuple[Question, Question], ...]:
    """The questions of a split whose right answer depends on the edition: (2012, 2022) pairs."""
    earlier, current = (questions(split, edition) for edition in EDITIONS)
    pairs = zip(earlier, current, strict=True)
    return tuple((a, b) for a, b in pairs if a.answers != b.answers)


def heldout(split: str | None = None) -> tuple[Article, ...]:
    """The articles of running text that no index holds and no question asks about.

    "dev" gives the first article of each file, for tuning; "test" the others; None all.
    """
    chosen: list[Article] = []
    families: set[str] = set()
    for article in articles():
        if article.split == "heldout":
            part = "test" if article.family in families else "dev"
            families.add(article.family)
            if split in (None, part):
                chosen.append(article)
    return tuple(chosen)
