"""The baseline without retrieval: the same reader, shown the question alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import Answer, check, check_length
from ragbook.methods.decoding import beam_search
from ragbook.models.generator import Generator, labels_of
from ragbook.models.sharing import one_at_a_time


class ClosedBook:
    """Answers from the reader's weights; there is no evidence, and k is not used.

    Parameters
    ----------
    reader: the generator.
    beams: prefixes kept for each question.
    max_length: longest answer in tokens.
    length_penalty: of the beam search; see `beam_search`.
    """

    name = "closed-book"
    retriever = None

    def __init__(
        self,
        reader: Generator[Any],
        beams: int = 2,
        max_length: int = 16,
        length_penalty: float = 0.0,
    ) -> None:
        check_length(reader, max_length)
        self.reader, self.beams, self.max_length = reader, beams, max_length
        self.length_penalty = length_penalty
        self.parameters = reader.parameters

    @one_at_a_time
    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), nats, float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        memory = self.reader.read(questions)
        return self.reader.token_log_probs(memory, labels_of(self.reader, answers)).sum(-1)

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The most probable answer of a beam search."""
        began = self.reader.clock()
        check(questions, k)
        if not questions:
            return []
        found = beam_search(
            self.reader.continuation(self.reader.read(questions)),
            len(questions),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            length_penalty=self.length_penalty,
        )
        seconds = (self.reader.clock() - began) / len(questions)
        return [
            Answer(q.text, self.reader.decode(h.tokens), h.log_prob, (), seconds, h.truncated)
            for q, (h, *_) in zip(questions, found, strict=True)
        ]
