"""What Fusion-in-Decoder and in-context retrieval share: an answer is written from all passages of
a question at once, and its evidence is how much attention each of them gets meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import Answer, GenerativeMethod, check, held_to, written_answer
from ragbook.methods.decoding import Hypothesis, beam_search
from ragbook.models.generator import Memory, labels_of, pad_labels
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved


class AllAtOnce(GenerativeMethod, ABC):
    """A method whose generator reads all passages of a question into one row of its memory."""

    @one_at_a_time
    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question, all passages), nats, float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        return self._log_prob(self._read(questions, k)[1], labels_of(self.reader, answers))

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The best answer of a beam search, with its attention as evidence."""
        began = self._clock()
        if not questions:
            return []
        retrieved, memory = self._read(questions, k)
        best = [hypotheses[0] for hypotheses in self._search(retrieved, memory)]
        weights = memory.attention(pad_labels([[*h.tokens, self.reader.end] for h in best]))
        seconds = (self._clock() - began) / len(questions)
        return [
            written_answer(q, h, r, w, self.reader.tokenizer, seconds)
            for q, h, r, w in zip(questions, best, retrieved, weights, strict=True)
        ]

    @one_at_a_time
    def generate(
        self, questions: Sequence[Question], k: int = 5, num_return_sequences: int = 1
    ) -> list[list[Hypothesis]]:
        """For each question up to `num_return_sequences` different answers, best first.

        `k` is the number of passages, which may differ from call to call. There are fewer answers
        where the beam search found fewer.
        """
        if not questions:
            return []
        found = self._search(*self._read(questions, k))
        return [hypotheses[:num_return_sequences] for hypotheses in found]

    @abstractmethod
    def _read(self, questions: Sequence[Question], k: int) -> tuple[list[Retrieved], Memory]:
        """What was retrieved, and the generator's memory of B rows, one for each question with its
        passages."""

    def _log_prob(self, memory: Memory, labels: Tensor) -> Tensor:
        return self.reader.token_log_probs(memory, labels).sum(-1)

    def _search(self, retrieved: Sequence[Retrieved], memory: Memory) -> list[list[Hypothesis]]:
        return beam_search(
            self.reader.continuation(memory),
            len(retrieved),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            held_to(self.reader, [r.passages for r in retrieved], self.verbatim),
            self.length_penalty,
        )
