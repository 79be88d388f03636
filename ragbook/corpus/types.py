"""Passages and questions, and ordered collections of them."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, make_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, overload

from msgspec import Struct

from ragbook.errors import InputError


class Passage(Struct, frozen=True, gc=False):
    """A piece of an article, at most about 100 words: what an index stores and a reader reads.

    There are millions of them, and a frozen dataclass takes eight times as long to make.
    """

    id: str
    title: str
    text: str

    # `dataclasses.replace`, `fields` and `asdict` see what they would see of a dataclass.
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]] = {
        one.name: one for one in fields(make_dataclass("Passage", ["id", "title", "text"]))
    }


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the answers that count as right (the canonical one first; none if they are not
    known), and the id of its gold passage, which answers it, if this is known. `also_gold` are the
    ids of further passages, or documents, each of which counts as gold too.

    Two kinds of question name a further passage. `rival_passage` is similar to the gold passage but
    about something else, and does not answer the question; `second_passage` holds another fact that
    the answer needs. An `indirect` question describes what it asks about and does not name it.

    `id` is the question's own in its file, if it has one there. `placed` is what `gold_passage`
    means in the corpus at hand, if this was looked up and is something else: the pieces of the
    document that it names, or no passage at all (:mod:`ragbook.corpus.gold`).
    """

    text: str
    answers: tuple[str, ...]
    gold_passage: str | None = None
    rival_passage: str | None = None
    second_passage: str | None = None
    indirect: bool = False
    id: str | None = field(default=None, compare=False)
    placed: tuple[str, ...] | None = None
    also_gold: tuple[str, ...] = ()

    @property
    def gold_ids(self) -> tuple[str, ...]:
        """The ids that the source of the questions names as gold, of passages or documents."""
        return () if self.gold_passage is None else (self.gold_passage, *self.also_gold)

    @property
    def gold_passages(self) -> tuple[str, ...]:
        """The ids of the passages each of which counts as gold; none if none is known."""
        return self.gold_ids if self.placed is None else self.placed

    @property
    def kind(self) -> str:
        """The first that fits of "two-passage", "indirect", "confusable" and "plain"."""
        if self.second_passage is not None:
            return "two-passage"
        if self.indirect:
            return "indirect"
        return "plain" if self.rival_passage is None else "confusable"


def passages_sha256(passages: Iterable[Passage]) -> str:
    """SHA-256 (hex) over id, title and text of all passages in order.

    Every field is hashed as its length (8 bytes, big-endian) and its UTF-8 bytes, so that different
    lists of passages never give the same bytes.
    """
    digest = hashlib.sha256()
    for passage in passages:
        for part in (passage.id, passage.title, passage.text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
    return digest.hexdigest()


class Corpus(Sequence[Passage]):
    """Passages with unique ids in a fixed order, which is the order of positions in an index.

    `documents` is the folder of the documents that they were cut from, if their ids name file and
    place. Raises InputError if two passages share an id.
    """

    def __init__(
        self, name: str, passages: Iterable[Passage], documents: Path | None = None
    ) -> None:
        self.name = name
        self.documents = documents
        self._passages = tuple(passages)
        self._positions = {passage.id: i for i, passage in enumerate(self._passages)}
        if len(self._positions) < len(self._passages):
            seen: set[str] = set()
            for passage in self._passages:
                if passage.id in seen:
                    raise InputError(
                        f"Corpus {name!r} has two passages with the id {passage.id!r}; "
                        "ids must be unique."
                    )
                seen.add(passage.id)

    def __len__(self) -> int:
        return len(self._passages)

    @overload
    def __getitem__(self, position: int) -> Passage: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Passage, ...]: ...
    def __getitem__(self, position: int | slice) -> Passage | tuple[Passage, ...]:
        return self._passages[position]

    def __repr__(self) -> str:
        return f"Corpus({self.name!r}, {len(self)} passages)"

    def position(self, passage_id: str) -> int:
        """The passage's position, from 0; KeyError if there is no passage with this id."""
        return self._positions[passage_id]

    def get(self, passage_id: str) -> Passage:
        """The passage with this id; KeyError if there is none."""
        return self._passages[self._positions[passage_id]]

    def ids(self) -> Iterator[str]:
        """The passages' ids, in order."""
        return iter(self._positions)

    def titles(self) -> Iterator[str]:
        """The passages' titles, in the same order."""
        return (passage.title for passage in self._passages)

    @cached_property
    def sha256(self) -> str:
        """:func:`passages_sha256` of these passages (the name is not included)."""
        return passages_sha256(self._passages)


class QuestionSet(Sequence[Question]):
    """Questions in a fixed order. ``skipped`` is the number of questions of the source that were
    left out because it says that they cannot be answered."""

    def __init__(
        self, name: str, split: str, questions: Iterable[Question], skipped: int = 0
    ) -> None:
        self.name = name
        self.split = split
        self.skipped = skipped
        self._questions = tuple(questions)

    def __len__(self) -> int:
        return len(self._questions)

    @overload
    def __getitem__(self, position: int) -> Question: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Question, ...]: ...
    def __getitem__(self, position: int | slice) -> Question | tuple[Question, ...]:
        return self._questions[position]

    def __repr__(self) -> str:
        return f"QuestionSet({self.name!r}, {self.split!r}, {len(self)} questions)"

    def head(self, n: int) -> "QuestionSet":
        """The first `n` questions (all of them if there are fewer); InputError if n < 1."""
        if n < 1:
            raise InputError(f"The number of questions must be at least 1, not {n}.")
        return QuestionSet(self.name, self.split, self._questions[:n], self.skipped)

    def numbered(self) -> "QuestionSet":
        """The same questions, each with an id: its own, or else its number, from 1. InputError if
        that number is the id of another question."""
        ids = [str(n) if q.id is None else q.id for n, q in enumerate(self._questions, 1)]
        if len(set(ids)) < len(ids):
            twice = next(one for one in ids if ids.count(one) > 1)
            raise InputError(
                f"Question {twice} of {self.name!r} has no id, and {twice!r} is the id of another "
                "question; give every question an id, or none."
            )
        own = (replace(q, id=one) for q, one in zip(self._questions, ids, strict=True))
        return QuestionSet(self.name, self.split, own, self.skipped)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) over text, answers and gold passage of all questions in order, each as
        one line of JSON; further gold passages stand behind it."""
        digest = hashlib.sha256()
        for question in self._questions:
            gold = (question.gold_passage, *question.also_gold)
            line = json.dumps([question.text, question.answers, *gold])
            digest.update(line.encode("ascii") + b"\n")
        return digest.hexdigest()
