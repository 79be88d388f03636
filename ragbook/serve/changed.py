"""What a retriever finds for a question, after a person struck out or edited some of it.

A passage that is struck out is not replaced by the next best one, and an edited passage keeps its
place and its score. So the retrieval stays as it was, and what changes in an answer comes from the
passages alone: leaving one out is what :mod:`ragbook.methods.leave_one_out` measures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec.structs import replace

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.retrieval import Retrieved, Retriever


class ChangedRetriever:
    """A retriever whose passages some are taken from and some are rewritten of.

    It keeps what it has found for its last questions, so that the methods that share it search
    once.

    Parameters
    ----------
    retriever: what finds the passages.
    struck: ids of passages to leave out.
    edited: other texts of passages, by id; titles stay.
    """

    def __init__(
        self, retriever: Retriever, struck: Collection[str] = (), edited: Mapping[str, str] = {}
    ) -> None:
        self.retriever, self.struck, self.edited = retriever, frozenset(struck), dict(edited)
        self.name, self.score_scale = retriever.name, retriever.score_scale
        self._found: tuple[object, list[Retrieved]] = (None, [])

    def whole(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """What the retriever finds, unchanged."""
        key = (tuple(questions), k)
        if self._found[0] != key:
            self._found = key, self.retriever.retrieve(questions, k)
        return self._found[1]

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """What is left of the k best passages for each question; see `Retriever`.

        Raises
        ------
        InputError: all passages of a question are struck out.
        """
        return [self._changed(found) for found in self.whole(questions, k)]

    def _changed(self, found: Retrieved) -> Retrieved:
        kept = [at for at, passage_id in enumerate(found.ids) if passage_id not in self.struck]
        if found.ids and not kept:
            raise InputError("All of its passages are struck out; leave it at least one.")
        passages = tuple(self.read(found.passages[at]) for at in kept)
        return Retrieved(tuple(p.id for p in passages), found.scores[kept], passages)

    def read(self, passage: Passage) -> Passage:
        """A passage as the methods read it."""
        text = self.edited.get(passage.id)
        return passage if text is None else replace(passage, text=text)
