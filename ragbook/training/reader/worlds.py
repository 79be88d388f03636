"""Invented worlds: random entities and facts, told in many wordings, from which readers learn to
read.

A small corpus cannot teach a reader to copy a name it has never seen: it has few names, which can
be learned by heart. In an invented world every name is new, so the only way to answer is to find
the fact in the passage and to copy it. Each world is one subject of one kind (a river, a battle, a
composer, ...), a few facts about it, and a question about one of them; the other passages tell the
same kind of facts about other subjects.

Everything is drawn from one `random.Random`, so a seed gives the same worlds on every machine.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from importlib import resources

from ragbook.corpus import Passage, Question

_TABLE = tomllib.loads(
    resources.files("ragbook.training.reader").joinpath("worlds.toml").read_text(encoding="utf-8")
)
_WORDS: dict[str, list[str]] = {name: text.split() for name, text in _TABLE["words"].items()}
_ONSETS, _VOWELS = _WORDS["onsets"], _WORDS["vowels"]
_MONTHS, _NUMBERS = _WORDS["months"], _WORDS["numbers"]
_NOUNS, _GIVEN, _TRADES = _WORDS["nouns"], _WORDS["given"], _WORDS["trades"]
_MATERIALS, _COLOURS = _WORDS["materials"], _WORDS["colours"]
_BEFORE, _AFTER = _TABLE["places"]["before"], _TABLE["places"]["after"]
_CODAS = ["", "", "", *_WORDS["codas"]]  # most syllables shall end in their vowel


class Names:
    """Draws invented names and values.

    Parameters
    ----------
    rng: the only source of randomness.
    words: real words that can also be names ("Castle", "Norwegian"), from a tokenizer's vocabulary.
        With them readers learn to copy all tokens, not only those that invented syllables give.
    """

    def __init__(self, rng: random.Random, words: list[str] | None = None) -> None:
        self.rng = rng
        self.words = words or _NOUNS

    def _syllables(self, low: int, high: int) -> str:
        pick = self.rng.choice
        return "".join(
            pick(_ONSETS) + pick(_VOWELS) + (pick(_CODAS) if self.rng.random() < 0.5 else "")
            for _ in range(self.rng.randint(low, high))
        )

    def proper(self) -> str:
        """One capitalised word: made of syllables, or any word of the vocabulary."""
        if self.rng.random() < 0.45:
            return self.rng.choice(self.words).capitalize()
        return self._syllables(1, 3).capitalize()

    def person(self) -> str:
        """A person's name: one to four words, or a first name with a regnal number."""
        first = self.rng.choice(_GIVEN) if self.rng.random() < 0.5 else self.proper()
        middle = f" {self.proper()}" if self.rng.random() < 0.12 else ""
        particle = self.rng.choice(["", "", "", "", " van", " de", " von"])
        number = self.rng.choice([" I", " II", " III", " IV", " V", " VIII", " XIV"])
        if self.rng.random() < 0.1:
            return first + number
        return f"{first}{middle}{particle} {self.proper()}"

    def place(self) -> str:
        """A place's name, one or two words."""
        name = self.proper()
        form = self.rng.random()
        if form < 0.62:
            return name
        if form < 0.74:
            return f"{self.rng.choice(_BEFORE)} {name}"
        if form < 0.88:
            return f"{name} {self.rng.choice(_AFTER)}"
        return f"{name} {self.proper()}"

    def work(self) -> str:
        """The title of a book, painting or film."""
        rng, noun = self.rng, lambda: self.rng.choice(self.words).capitalize()
        return rng.choice(
            [
                lambda: f"The {noun()}",
                lambda: f"The {noun()} {noun()}",
                lambda: f"{noun()} and {noun()}",
                lambda: f"The {noun()} of {self.proper()}",
                lambda: f"{noun()} in the {noun()}",
                lambda: self.proper(),
                lambda: f"A {noun()} for {self.proper()}",
            ]
        )()

    def group(self) -> str:
        """The name of a company, university or the like."""
        kind = self.rng.choice(
            [
                "Company",
                "Society",
                "Institute",
                "University",
                "League",
                "Academy",
                "Brothers",
                "Union",
                "Works",
                "Museum",
            ]
        )
        return (
            f"{self.proper()} {kind}"
            if self.rng.random() < 0.8
            else f"University of {self.proper()}"
        )

    def year(self) -> str:
        """A year from 1010 to 2020, in digits."""
        return str(self.rng.randint(1010, 2020))

    def date(self) -> str:
        """A day, month and year."""
        return f"{self.rng.randint(1, 28)} {self.rng.choice(_WORDS['months'])} {self.year()}"

    def month(self) -> str:
        """A month and year."""
        return f"{self.rng.choice(_WORDS['months'])} {self.year()}"

    def count(self) -> str:
        """A whole number below 1,000, in words or digits."""
        if self.rng.random() < 0.5:
            return self.rng.choice(_NUMBERS)
        return f"{self.rng.choice([self.rng.randint(2, 99), self.rng.randint(100, 999)])}"

    def amount(self) -> str:
        """A number of up to five digits, with a comma or one decimal."""
        number = self.rng.choice(
            [self.rng.randint(2, 900), self.rng.randint(1000, 9999), self.rng.randint(10000, 99999)]
        )
        return f"{number:,}" if self.rng.random() < 0.7 else f"{number / 10:.1f}"

    def thing(self) -> str:
        """A noun, sometimes with a colour before it."""
        noun = self.rng.choice(self.words).lower()
        return f"{self.rng.choice(_WORDS['colours'])} {noun}" if self.rng.random() < 0.3 else noun

    def trade(self) -> str:
        """What somebody does for a living."""
        return self.rng.choice(_TRADES)

    def material(self) -> str:
        """What a thing is made of."""
        return self.rng.choice(_MATERIALS)

    def colour(self) -> str:
        """A colour."""
        return self.rng.choice(_COLOURS)

    def people(self) -> str:
        """The name of a people, or its adjective."""
        return self.proper() + self.rng.choice(["ish", "ian", "ese", "ans", "i"])


@dataclass(frozen=True)
class Relation:
    """One kind of fact: `value` names the method of `Names` that draws its object.

    `told` and `asked` are wordings with `{s}` for the subject and, in `told`, `{a}` for the answer.
    """

    value: str
    told: tuple[str, ...]
    asked: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """One kind of subject: the method of `Names` that names it, its pronouns, its relations."""

    name: str
    pronouns: tuple[str, ...]
    relations: tuple[Relation, ...]


def _kinds() -> dict[str, Kind]:
    """The kinds that the table in `worlds.toml` lists."""
    return {
        kind: Kind(
            entry["name"],
            tuple(entry["pronouns"]),
            tuple(
                Relation(fact["value"], tuple(fact["told"]), tuple(fact["asked"]))
                for fact in entry["facts"]
            ),
        )
        for kind, entry in _TABLE["kinds"].items()
    }


KINDS = _kinds()
"""The kinds of subjects that worlds can have, by name."""

_OPENERS = ("", "", "", "", "In fact, ", "Today, ", "As is well known, ", "According to records, ")
_FILLERS = (
    "Little else is recorded about it.",
    "Several legends are told about this.",
    "Visitors still come every summer.",
    "The details were long disputed.",
    "Much of the archive was lost in a fire.",
    "Its influence was felt for generations.",
    "Later accounts differ on the rest.",
    "Scholars have written about it at length.",
)


@dataclass(frozen=True)
class Example:
    """A question, the passages shown for it, and the position of the one that holds the answer.

    `gold` is None when no passage holds the answer; the right output is then the empty answer.
    """

    question: Question
    passages: tuple[Passage, ...]
    gold: int | None


def _article(
    names: Names, kind: str, facts: int, passage_id: str, filler: float
) -> tuple[Passage, str, list[tuple[Relation, str]]]:
    """One passage about one invented subject: (passage, subject, facts in it)."""
    rng = names.rng
    of = KINDS[kind]
    subject = getattr(names, of.name)()
    chosen = rng.sample(of.relations, min(facts, len(of.relations)))
    told: list[tuple[Relation, str]] = []
    sentences: list[str] = []
    for number, relation in enumerate(chosen):
        answer = getattr(names, relation.value)()
        mention = subject
        wording = rng.choice(relation.told)
        if number and "the {s}" not in wording.lower() and rng.random() < 0.35:
            mention = rng.choice(of.pronouns)
        sentence = wording.format(s=mention, a=answer)
        sentence = rng.choice(_OPENERS) + sentence
        sentences.append(sentence[0].upper() + sentence[1:])
        told.append((relation, answer))
    if len(sentences) > 2 and rng.random() < 0.3:  # two facts in one sentence
        second, (_, answer) = sentences.pop(1), told[1]
        named = second.split()[0] in subject.split() or second.startswith(answer)
        keep = second if named else second[0].lower() + second[1:]
        sentences[0] = f"{sentences[0]}, and {keep}"
    text = ". ".join(sentences) + "."
    if rng.random() < filler:
        text += " " + rng.choice(_FILLERS)
    title = subject if kind != "battle" else f"Battle of {subject}"
    return Passage(passage_id, title, text), subject, told


def example(
    rng: random.Random,
    n_passages: int = 1,
    facts: tuple[int, int] = (1, 6),
    unanswerable: float = 0.0,
    words: list[str] | None = None,
) -> Example:
    """Draw one example.

    Parameters
    ----------
    rng: source of randomness; the same state gives the same example.
    n_passages: how many passages are shown; all but one are about other subjects, most of which are
        of the same kind.
    facts: the least and the most facts in a passage.
    unanswerable: probability that the passage with the answer is left out.
    words: see `Names`.

    Returns
    -------
    An `Example` whose answer is in exactly one of the passages, verbatim and exactly once.
    """
    if n_passages < 1:
        raise ValueError(f"n_passages must be at least 1, not {n_passages}")
    names = Names(rng, words)
    while True:
        kind = rng.choice(list(KINDS))
        articles = [_article(names, kind, rng.randint(*facts), "w0", 0.4)]
        for number in range(1, n_passages + 1):
            other = kind if rng.random() < 0.7 else rng.choice(list(KINDS))
            articles.append(_article(names, other, rng.randint(*facts), f"w{number}", 0.4))
        gold_passage, subject, told = articles[0]
        relation, answer = rng.choice(told)
        everything = " ".join(f"{p.title} {p.text}" for p, _, _ in articles)
        # The answer must occur exactly once, and no other fact told may fit the same question.
        same_kind = [a for r, a in told if r.value == relation.value and r.asked == relation.asked]
        if everything.lower().count(answer.lower()) != 1 or len(same_kind) != 1:
            continue
        asked = rng.choice(relation.asked).format(s=subject)
        if answer.lower() not in asked.lower():
            break
    question = Question(asked, (answer,), gold_passage.id)
    others = [p for p, _, _ in articles[1:]]
    if rng.random() < unanswerable:
        shown = others[:n_passages]
        rng.shuffle(shown)
        return Example(question, tuple(shown), None)
    shown = [gold_passage, *others[: n_passages - 1]]
    rng.shuffle(shown)
    return Example(question, tuple(shown), shown.index(gold_passage))
