"""MiniWiki, the encyclopaedia that ships with the book.

Its source is the Markdown beside this module, one file a family of articles that are easily taken
for one another. A line ``# Title`` begins an article, every other line that is not empty is one
passage, and each pair of lines ``Q: question`` and ``A: answer | alias | ...`` asks for a fact of
the passage above it. Files named ``heldout-*`` hold running text without questions, which is in
no index: language-modelling tests read it.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ragbook.corpus.types import Corpus, Passage, Question, QuestionSet
from ragbook.errors import InputError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Article:
    """An article; `split` is "train", "dev", "test" or "heldout"."""

    title: str
    family: str
    split: str
    passages: tuple[Passage, ...]
    questions: tuple[Question, ...]


def split_of(title: str) -> str:
    """The split of an article's questions: by article, so that no split asks about a passage that
    another asks about, and by the title's hash, so that a new article moves no other.

    The first 8 bytes of the title's SHA-256, read as a fraction of 1: below 0.60 train, below
    0.72 dev, else test.
    """
    digest = hashlib.sha256(title.encode("utf-8")).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    return "train" if fraction < 0.60 else "dev" if fraction < 0.72 else "test"


def slug(title: str) -> str:
    """The title in lower-case ASCII letters, digits and hyphens: ``Louis XIV`` is ``louis-xiv``."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def parse(text: str, family: str) -> tuple[Article, ...]:
    """The articles of one source file. Raises InputError naming the line that does not fit."""
    found: list[Article] = []
    title = asked = ""
    passages: list[Passage] = []
    questions: list[Question] = []

    def finish() -> None:
        split = "heldout" if family.startswith("heldout-") else split_of(title)
        found.append(Article(title, family, split, tuple(passages), tuple(questions)))

    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        where = f"miniwiki/{family}.md, line {number}"
        if asked and not line.startswith("A: "):
            raise InputError(f"{where}: a line 'Q: ' must be followed at once by a line 'A: '.")
        if not line:
            continue
        if line.startswith("# "):
            if title:
                finish()
            title, passages, questions = line[2:].strip(), [], []
        elif line.startswith("Q: "):
            if not passages:
                raise InputError(f"{where}: a question must stand below its passage.")
            asked = line[3:].strip()
        elif line.startswith("A: "):
            if not asked:
                raise InputError(f"{where}: an answer must stand below its question.")
            answers = tuple(answer.strip() for answer in line[3:].split("|"))
            if not all(answers):
                raise InputError(f"{where}: an answer is empty.")
            questions.append(Question(asked, answers, passages[-1].id))
            asked = ""
        elif not title:
            raise InputError(f"{where}: a passage must stand below a line '# Title'.")
        else:
            passages.append(Passage(f"{slug(title)}-{len(passages) + 1}", title, line))
    if asked:
        raise InputError(f"miniwiki/{family}.md: the last question has no answer.")
    if title:
        finish()
    return tuple(found)


@cache
def articles() -> tuple[Article, ...]:
    """All articles, held-out ones too, files in the order of their names."""
    folder = resources.files("ragbook.corpus").joinpath("miniwiki")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".md")), key=lambda f: f.name)
    return tuple(
        article
        for file in files
        for article in parse(file.read_text(encoding="utf-8"), file.name.removesuffix(".md"))
    )


@cache
def corpus() -> Corpus:
    """The passages to index: those of all articles that are not held out."""
    return Corpus("miniwiki", (p for a in articles() if a.split != "heldout" for p in a.passages))


@cache
def questions(split: str = "test") -> QuestionSet:
    """The questions of a split, in the order of their texts' SHA-256: so the first n of them are
    a fair sample of all families and not the first families' questions."""
    if split not in SPLITS:
        raise InputError(f"MiniWiki has the splits {', '.join(SPLITS)}, not {split!r}.")
    of_split = [q for a in articles() if a.split == split for q in a.questions]
    of_split.sort(key=lambda question: hashlib.sha256(question.text.encode("utf-8")).digest())
    return QuestionSet("miniwiki", split, of_split)


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
