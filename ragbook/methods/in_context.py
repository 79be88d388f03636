"""In-context retrieval: all passages in one prompt, the best one last (Ram et al. 2023).

Today this is what is most often called RAG. Nothing is marginalised and nothing is fused: the model
reads one long text, in which every passage can attend to those before it, and continues it. Ram et
al. (section 3) put the retrieved text before the text to be continued; several passages are ordered
by their scores, with the best one nearest to the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.methods.base import Answer, check, held_to, written_answer
from ragbook.methods.decoding import Hypothesis, beam_search
from ragbook.models.generator import Generator, Memory, labels_of, pad_labels
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved, Retriever


class InContext:
    """Answers after one prompt with all passages; evidence is the last layer's pooled attention.

    Parameters
    ----------
    reader: the generator.
    retriever: gives the passages. Those that do not fit into the model's input are left out, the
        worst first; their evidence is 0.
    beams: prefixes kept for each question; 1 is greedy decoding.
    max_length: longest answer in tokens.
    verbatim: an answer is a run of words of one of the passages.
    length_penalty: of the beam search; see `beam_search`.
    """

    name = "in-context"

    def __init__(
        self,
        reader: Generator[Any],
        retriever: Retriever,
        beams: int = 2,
        max_length: int = 16,
        verbatim: bool = False,
        length_penalty: float = 0.0,
    ) -> None:
        self.reader, self.retriever = reader, retriever
        self.beams, self.max_length, self.verbatim = beams, max_length, verbatim
        self.length_penalty = length_penalty
        self.parameters = reader.parameters

    @one_at_a_time
    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | the prompt), nats, float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        _, memory = self._read(questions, k)
        return self.reader.token_log_probs(memory, labels_of(self.reader, answers)).sum(-1)

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The best answer of a beam search after the prompt."""
        began = self.reader.clock()
        if not questions:
            return []
        retrieved, memory = self._read(questions, k)
        found = beam_search(
            self.reader.continuation(memory),
            len(questions),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            held_to(self.reader, [r.passages for r in retrieved], self.verbatim),
            self.length_penalty,
        )
        best: list[Hypothesis] = [hypotheses[0] for hypotheses in found]
        weights = memory.attention(pad_labels([[*h.tokens, self.reader.end] for h in best]))
        seconds = (self.reader.clock() - began) / len(questions)
        return [
            written_answer(q, h, r, w, self.reader.tokenizer, seconds)
            for q, h, r, w in zip(questions, best, retrieved, weights, strict=True)
        ]

    def _read(self, questions: Sequence[Question], k: int) -> tuple[list[Retrieved], Memory]:
        check(questions, k)
        retrieved = self.retriever.retrieve(questions, k)
        for number, found in enumerate(retrieved, 1):
            if not found.ids:
                raise InputError(
                    f"nothing was retrieved for question {number}; search another index"
                )
        return retrieved, self.reader.read_together(questions, [r.passages for r in retrieved])
