"""The baseline without retrieval: the same reader, shown the question alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import Answer, check
from ragbook.methods.decoding import beam_search
from ragbook.models import SeqReader
from ragbook.models.sharing import one_at_a_time


class ClosedBook:
    """Answers from the reader's weights; there is no evidence, and k is not used.

    Parameters
    ----------
    reader: any seq2seq model.
    beams: prefixes kept for each question.
    max_length: longest answer in tokens.
    """

    name = "closed-book"
    retriever = None

    def __init__(self, reader: SeqReader, beams: int = 2, max_length: int = 16) -> None:
        self.reader, self.beams, self.max_length = reader, beams, max_length
        self.parameters = reader.parameters

    @one_at_a_time
    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), nats, float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        states, mask = self.reader.encode_questions(questions)
        labels = self.reader.pad_labels(self.reader.answer_ids(answers))
        return self.reader.token_log_probs(self.reader.memory(states, mask), labels).sum(-1)

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The most probable answer of a beam search."""
        began = self.reader.pairs.clock()
        check(questions, k)
        if not questions:
            return []
        states, mask = self.reader.encode_questions(questions)
        found = beam_search(
            self.reader.continuation(self.reader.memory(states, mask)),
            len(questions),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
        )
        seconds = (self.reader.pairs.clock() - began) / len(questions)
        return [
            Answer(q.text, self.reader.decode(h[0].tokens), h[0].log_prob, (), seconds)
            for q, h in zip(questions, found, strict=True)
        ]
