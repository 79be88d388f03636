"""Which passages of a corpus a question's gold id means: one, the pieces of a document, or none.

`ragbook corpus build` cuts the passage ``0`` into the pieces ``0-1``, ``0-2`` and so on. A question
file that names the whole document ``0`` still means something in the corpus of the pieces, as their
ids lead back to it: where no passage is called ``0``, each of its pieces counts as gold. So does
each piece of the file ``guide/setup.md``, such as ``guide/setup.md#L12``. HotpotQA and others name
articles by their titles: a gold id that is no id of the corpus means the passages of that title.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol
from weakref import WeakKeyDictionary

from ragbook.corpus.answers import has_answer
from ragbook.corpus.ids import is_number
from ragbook.corpus.types import Passage, Question, QuestionSet


class Passages(Protocol):
    """What is needed of a corpus here; a `Corpus` and an index's stored passages have it."""

    name: str

    def ids(self) -> Iterator[str]:
        """All ids, in order."""
        ...

    def titles(self) -> Iterator[str]:
        """The titles, in the same order."""
        ...

    def get(self, passage_id: str) -> Passage:
        """The passage with this id; KeyError if there is none."""
        ...


def meanings(ids: Iterable[str], wanted: Collection[str]) -> dict[str, tuple[str, ...]]:
    """What each of the gold ids `wanted` means among the ids of a corpus: itself if it is one of
    them, otherwise the ids of its pieces in the corpus's order; often none at all.

    The ids are read once, so that those of all of Wikipedia need not be in memory.
    """
    wanted = set(wanted)
    there: set[str] = set()
    pieces: dict[str, list[str]] = {}
    for passage_id in ids:
        if passage_id in wanted:
            there.add(passage_id)
        document = document_of(passage_id)
        if document in wanted:
            pieces.setdefault(document, []).append(passage_id)
    return {one: (one,) if one in there else tuple(pieces.get(one, ())) for one in wanted}


_PLACE = re.compile(r"#(L|P|page=)([1-9][0-9]{0,11})(?:\.[1-9][0-9]{0,11})?\Z")


class Place(NamedTuple):
    """Where a passage begins, as its id says.

    Attributes
    ----------
    document: the file.
    mark, number: ``L`` and a line, ``P`` and a block of a page's text, or ``page=`` and a page.
    """

    document: str
    mark: str
    number: int


def place_of(passage_id: str) -> Place | None:
    """The place that an id names; None for an id of another form."""
    found = _PLACE.search(passage_id)
    if found is None or not found.start():
        return None
    return Place(passage_id[: found.start()], found[1], int(found[2]))


def document_of(passage_id: str) -> str | None:
    """The document that a piece was cut from, by its id; None for an id of another form.

    Of ``<id>-1`` it is ``<id>``, of a place such as ``guide/setup.md#L12``, ``page.html#P5.2`` or
    ``paper.pdf#page=3`` the file.
    """
    if (place := place_of(passage_id)) is not None:
        return place.document
    document, _, number = passage_id.rpartition("-")
    whole = number.isascii() and is_number(number) and number != "0"
    return document if document and whole else None


def placed(questions: QuestionSet, corpus: Passages) -> QuestionSet:
    """The questions with what their gold ids mean in a corpus, `Question.placed`. Where the gold
    ids are passages', as usual, nothing changes."""
    wanted = {gold for question in questions for gold in question.gold_ids}
    if not wanted:
        return questions
    found = meanings(corpus.ids(), wanted)
    # A number is no title: one that the corpus lacks is the id of another corpus.
    unknown = {one for one in wanted if not found[one] and any(map(str.isalpha, one))}
    if unknown:
        found |= _of_titles(corpus, unknown)

    def known(question: Question) -> Question:
        there = tuple(dict.fromkeys(own for gold in question.gold_ids for own in found[gold]))
        return question if there == question.gold_ids else replace(question, placed=there)

    return QuestionSet(
        questions.name, questions.split, map(known, questions), skipped=questions.skipped
    )


def _of_titles(corpus: Passages, titles: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The ids of the passages that have each of some titles."""
    found: dict[str, list[str]] = {title: [] for title in titles}
    for passage_id, title in zip(corpus.ids(), corpus.titles(), strict=True):
        if title in found:
            found[title].append(passage_id)
    return {title: tuple(ids) for title, ids in found.items()}


def missing(questions: Iterable[Question]) -> list[Question]:
    """The questions whose gold ids mean nothing in the corpus in which they were `placed`, not one
    of them."""
    return [question for question in questions if question.placed == ()]


def missing_sentence(questions: Sequence[Question], corpus: str) -> str | None:
    """How many gold ids the corpus of that name lacks, with an example; None if it has them all.
    The questions were `placed` in it."""
    lost = missing(questions)
    if not lost:
        return None
    named = sum(question.gold_passage is not None for question in questions)
    return (
        f"{len(lost):,} of {named:,} gold passages are not in corpus {corpus!r}, such as "
        f"{lost[0].gold_passage!r} of the question {lost[0].text!r}"
    )


def by_answer(questions: QuestionSet) -> QuestionSet:
    """The questions without their gold ids, so that a passage counts that holds an answer: DPR's
    rule (Karpukhin et al. 2020, section 5)."""
    return QuestionSet(
        questions.name,
        questions.split,
        (replace(one, gold_passage=None, also_gold=(), placed=None) for one in questions),
        skipped=questions.skipped,
    )


def gold_passage(corpus: Passages, question: Question) -> Passage | None:
    """The passage that a question's first gold id with a meaning names: of a document's pieces the
    first that holds an answer, or the first of all. For ids that are titles the question must have
    been `placed`. None if the question names no gold passage, or
    only ones that the corpus lacks."""
    for gold in question.gold_ids:
        try:
            return corpus.get(gold)
        except KeyError:
            pieces = list(_pieces(corpus, gold)) or _pieces_by_place(corpus, gold)
        if pieces:
            return _holding(pieces, question)
    placed = [corpus.get(one) for one in question.placed or ()]
    return _holding(placed, question) if placed else None


def _holding(passages: Sequence[Passage], question: Question) -> Passage:
    """The first of some passages that holds an answer, or the first of all."""
    holding = (one for one in passages if has_answer(one.text, question.answers))
    return next(holding, passages[0])


def _pieces(corpus: Passages, document: str) -> Iterator[Passage]:
    """A document's pieces, whose numbers have no gaps."""
    number = 1
    while True:
        try:
            yield corpus.get(f"{document}-{number}")
        except KeyError:
            return
        number += 1


_by_place: WeakKeyDictionary[Passages, dict[str, list[str]]] = WeakKeyDictionary()
"""For each corpus that was asked for one: its documents whose pieces are named by their places, and
these pieces' ids. To read all ids for every question would take long."""


def _pieces_by_place(corpus: Passages, document: str) -> list[Passage]:
    """A document's pieces whose ids name places."""
    if corpus not in _by_place:
        found: dict[str, list[str]] = {}
        for passage_id in corpus.ids():
            if (place := place_of(passage_id)) is not None:
                found.setdefault(place.document, []).append(passage_id)
        _by_place[corpus] = found
    return [corpus.get(one) for one in _by_place[corpus].get(document, ())]
