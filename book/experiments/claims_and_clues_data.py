r"""Two more tasks from MiniWiki's own questions and passages: claims to check, clues to write.

The models of the RAG paper have two more tasks than to answer questions (Lewis et al. 2020,
sections 3.3 and 3.4): they write Jeopardy questions, and they check claims, where the target is one
token. Here both have the form of ordinary questions, so that every method can take them:

* a claim is `Question(claim, ("true",) or ("false",), gold_passage)`. Its sentence is the
  passage's sentence that holds an answer, or the question itself with the answer in the place of
  "who" or "which ...". In a false claim the answer is replaced by another question's answer of the
  same kind, as similar as possible: a year for a year, a sculptor for a sculptor;
* a clue is `Question(answer, (question, ...), gold_passage)`: given a name, a question that asks
  for it is to be written. If several passages hold the name, the passage's title is given too.

Both are made from the questions of one split, and drawn with a seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

from ragbook.corpus import miniwiki
from ragbook.corpus.types import Passage, Question, QuestionSet

LABELS = ("true", "false")
NEAREST = 8
"""From how many of the most similar other answers the one of a false claim is drawn."""

WORDS = range(6, 31)
"""The most words of a claim: readers cut longer questions."""


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


_ABBREVIATED = re.compile(
    r"(?:\b(?:[A-Z]|St|Mt|Dr|Mr|Mrs|No|Jr|v|vs|c)|\.[A-Za-z])\.$"
)
_TO_NINE = _words("one two three four five six seven eight nine")
_TEENS = _words(
    "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
)
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
_VALUES = {word: value for value, word in enumerate([*_TO_NINE, *_TEENS], 1)}
_VALUES |= {ten: 10 * value for value, ten in enumerate(_TENS, 2)}
_VALUES |= {
    f"{ten}-{one}": _VALUES[ten] + _VALUES[one]
    for ten in _TENS
    for one in _TO_NINE
}
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DATE = re.compile(rf"\d{{1,2}} {_MONTH}(?: \d{{3,4}})?|{_MONTH} \d{{3,4}}")
_LOWER = frozenset(
    _words(
        "a an and at by de del der des di du for from in la le of on the to van von"
    )
)
_PLACES = frozenset(
    _words(
        "city town village place country state province region district suburb"
    )
)
_ASKS_BACK = frozenset(
    _words(
        "did do does has have had can could will would should may might besides"
    )
)


def kind(answer: str) -> str | None:
    """The kind of an answer: "year", "date", "number" or "name"; None for plain words."""
    if re.fullmatch(r"1\d{3}|20\d{2}", answer):
        return "year"
    if _DATE.fullmatch(answer):
        return "date"
    if re.match(r"\d", answer) or answer.lower() in _VALUES:
        return "number"
    if re.fullmatch(_MONTH, answer):
        return None
    words = re.sub(r"^(?:the|an?) ", "", answer, flags=re.IGNORECASE).split()
    capital = [w[0].isupper() for w in words if w.lower() not in _LOWER]
    return "name" if capital and all(capital) else None


def _value(answer: str) -> float:
    """The value by which a number, a year or a date is compared with others."""
    if answer.lower() in _VALUES:
        return _VALUES[answer.lower()]
    return float(re.findall(r"\d[\d,]*(?:\.\d+)?", answer)[-1].replace(",", ""))


def _form(answer: str) -> str:
    """The form of an answer: its unit without the digits, or a name's pattern of capitals."""
    if kind(answer) == "name":
        return " ".join("Aa" if w[0].isupper() else w for w in answer.split())
    if answer.lower() in _VALUES:
        return "Word" if answer[0].isupper() else "word"
    return re.sub(rf"{_MONTH}|\d[\d,.]*", "0", answer)


def _asked_for(question: str) -> str:
    """The sort of thing a question asks for: a person, a place, or the word after "which"."""
    text = question.lower()
    if re.search(r"\b(?:who|whom|whose)\b", text):
        return "person"
    if match := re.search(r"\b(?:which|what)\s+(\w+)", text):
        return "place" if match[1] in _PLACES else match[1]
    return "place" if re.search(r"\bwhere\b", text) else "other"


def sentences(text: str) -> list[str]:
    """The sentences of a passage; initials and "St." do not end one."""
    out: list[str] = []
    for piece in re.split(r"(?<=[.!?]) (?=[^a-z])", text):
        if out and _ABBREVIATED.search(out[-1]):
            out[-1] += " " + piece
        else:
            out.append(piece)
    return out


@dataclass(frozen=True)
class _Made:
    """A question turned into a statement; `before + answer + after` is the claim."""

    question: Question
    passage: Passage
    family: str
    answer: str  # without its article
    before: str
    after: str
    kind: str
    form: str
    sort: str  # the sort of thing asked for
    article: bool  # whether "the" comes before the answer

    def claim(self, answer: str) -> str:
        """The statement with this answer in its place."""
        text = f"{self.before}{answer}{self.after}"
        return text[0].upper() + text[1:]


@cache
def _verbs() -> frozenset[str]:
    """The words after "Who" in MiniWiki's questions: verbs of which it is the subject."""
    heads = (
        q.text.split()[:2]
        for split in miniwiki.SPLITS
        for q in miniwiki.questions(split)
    )
    found = {
        head[1].lower() for head in heads if len(head) > 1 and head[0] == "Who"
    }
    return frozenset(found - _ASKS_BACK - {"really", "first", "once", "also"})


def _after_subject(question: str) -> str | None:
    """The rest of a question whose subject is "who" or "which ..."; None for other questions."""
    words = question.rstrip("?").split()
    if words[0] == "Who":
        return None if words[1].lower() in _ASKS_BACK else " ".join(words[1:])
    if words[0] not in ("Which", "What"):
        return None
    for at, word in enumerate(words[2:6], 2):
        if word.lower() in _ASKS_BACK or word in ("is", "was", "are", "were"):
            return None  # the subject may come later
        if words[at - 1].endswith(("'s", "s'")):
            return (
                None  # "which poet's daughter": the answer is not the subject
            )
        if word in _verbs():
            following = words[at + 1] if at + 1 < len(words) else "by"
            return (
                None
                if following in ("by", "in", "at", "with")
                else " ".join(words[at:])
            )
    return None


def _statement(
    question: Question,
    passage: Passage,
    family: str,
    answer: str,
    before: str,
    after: str,
) -> _Made:
    article = re.match("the ", answer, flags=re.IGNORECASE)
    if article:
        before, answer = before + article[0], answer[article.end() :]
    return _Made(
        question,
        passage,
        family,
        answer,
        before,
        after,
        kind(answer) or "",
        _form(answer),
        _asked_for(question.text),
        bool(re.search(r"\bthe $", before, flags=re.IGNORECASE)),
    )


def _made(question: Question, passage: Passage, family: str) -> _Made | None:
    """The statement made from a question, or from the sentence that answers it; None if neither can
    be used."""
    said = _after_subject(question.text)
    if said and len(said.split()) >= 5 and kind(question.answers[0]) == "name":
        return _statement(
            question, passage, family, question.answers[0], "", f" {said}."
        )
    title = re.sub(r" \(.*", "", passage.title)
    for sentence in sentences(passage.text):
        for clause in sentence.rstrip(".").split("; "):
            for alias in question.answers:
                held = list(
                    re.finditer(
                        rf"(?<![\w-]){re.escape(alias)}(?![\w-])", clause
                    )
                )
                if (
                    len(held) != 1
                    or len(clause.split()) not in WORDS
                    or kind(alias) is None
                ):
                    continue
                if alias in title or title in alias:
                    return None  # the title would tell which answer is right
                before, after = (
                    clause[: held[0].start()],
                    clause[held[0].end() :],
                )
                if before:
                    before = before[0].upper() + before[1:]
                if title not in clause:
                    before = f"{title}: {before}"
                if not re.search(
                    r"\ban? $", before
                ):  # "a" or "an" depends on the answer
                    return _statement(
                        question, passage, family, alias, before, after + "."
                    )
    return None


def _rivals(made: _Made, others: Sequence[_Made]) -> list[str]:
    """The most similar answers of the same kind that are not in the passage."""
    said = (
        made.passage.title,
        made.passage.text,
        made.question.text,
        *made.question.answers,
    )
    known = set(_words(" ".join(said))) - _LOWER
    fitting: dict[str, tuple[float, ...]] = {}
    for other in others:
        if other.kind != made.kind or other.article != made.article:
            continue
        if made.kind == "name":
            apart: tuple[float, ...] = (
                other.sort != made.sort,
                other.form != made.form,
                other.family != made.family,
            )
        elif other.form == made.form:
            apart = (abs(_value(other.answer) - _value(made.answer)),)
        else:
            continue
        fitting[other.answer] = min(apart, fitting.get(other.answer, apart))
    answers = sorted(fitting)
    random.Random(made.question.text).shuffle(
        answers
    )  # random order among equally similar ones
    likest = sorted(answers, key=fitting.__getitem__)
    return list(
        islice((a for a in likest if not known & set(_words(a))), NEAREST)
    )


@cache
def _statements(split: str) -> tuple[tuple[_Made, tuple[str, ...]], ...]:
    """The split's statements, each with the answers that make it false."""
    places = {
        p.id: (p, a.family) for a in miniwiki.articles() for p in a.passages
    }
    made = [
        one
        for question in miniwiki.questions(split)
        if question.gold_passage
        and (one := _made(question, *places[question.gold_passage]))
    ]
    people = {
        m.answer.split()[0]
        for m in made
        if m.sort == "person" and re.fullmatch("Aa Aa", m.form)
    }
    made = [
        replace(m, sort="person") if m.answer.split()[0] in people else m
        for m in made
    ]
    paired = ((one, tuple(_rivals(one, made))) for one in made)
    return tuple((one, rivals) for one, rivals in paired if rivals)


def claims(split: str = "test", seed: int = 0) -> QuestionSet:
    """Claims, half of them true and half false: one for each question that can be turned into one.

    With another seed other claims are false, with other answers.

    Raises
    ------
    InputError: MiniWiki has no such split.
    """
    statements = _statements(split)
    rng = random.Random(f"{split}-{seed}")
    false = set(rng.sample(range(len(statements)), len(statements) // 2))
    out = []
    for number, (made, rivals) in enumerate(statements):
        answer = rng.choice(rivals) if number in false else made.answer
        label = LABELS[number in false]
        out.append(Question(made.claim(answer), (label,), made.passage.id))
    return QuestionSet("miniwiki-claims", split, out)


def clues(split: str = "test") -> QuestionSet:
    """Names, each with the questions that ask for it and that its passage answers.

    Raises
    ------
    InputError: MiniWiki has no such split.
    """
    corpus = miniwiki.corpus()
    texts = [f" {' '.join(_words(f'{p.title} {p.text}'))} " for p in corpus]
    asked: dict[tuple[str, str], list[str]] = {}
    for question in miniwiki.questions(split):
        if question.gold_passage and kind(question.answers[0]) == "name":
            asked.setdefault(
                (question.answers[0], question.gold_passage), []
            ).append(question.text)
    out = []
    for (answer, gold), questions in asked.items():
        name = re.sub(r"^(?:[Tt]he|[Aa]n?) ", "", answer)
        title = corpus.get(gold).title
        told = f" {' '.join(_words(name))} "
        alone = sum(told in text for text in texts) <= 1
        text = name if alone or name in title else f"{name} ({title})"
        out.append(Question(text, tuple(questions), gold))
    return QuestionSet("miniwiki-clues", split, out)
