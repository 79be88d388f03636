r"""Fusion-in-Decoder (Izacard & Grave 2021).

The encoder reads each (question, passage) pair by itself; the decoder attends over all their states
at once (section 3). With n passages of L tokens the encoder's self-attention costs \(n L^2\) and
not \((nL)^2\), and the decoder can combine what several passages say.

Cross-attention has no positions, so padding between the passages changes nothing and is left out:
the decoder's keys and values are those of real tokens only (`pack`). Only the original checkpoints
have some (`ragbook.models.checkpoints.fid`), and their readers count the padding that is not there.

FiD has no posterior over passages. Three measures can take its place: the decoder's attention while
it writes the answer (`FiD.attention`), its scores before the softmax, from which Izacard & Grave
(2021b, section 3) distil a retriever (`FiD.first_token_scores`), and how much less likely the
answer becomes without a passage (`FiD.leave_one_out`).
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
from ragbook.models.fusion import fuse, pack, passage_sums
from ragbook.models.generator import Generator, Memory, labels_of, pad_labels
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved, Retriever

__all__ = ["FiD", "fuse", "pack", "passage_sums"]


class FiD:
    """Answers from all passages at once; evidence is the decoder's pooled cross-attention.

    Parameters
    ----------
    reader: the generator. In an encoder-decoder the decoder attends to all passages, in a
        decoder-only model the tokens of question and answer do.
    retriever: gives the passages; questions may have different numbers of them.
    beams: prefixes kept for each question; 1 is greedy decoding, as in the paper.
    max_length: longest answer in tokens.
    verbatim: an answer is a run of words of one of the passages.
    length_penalty: of the beam search; see `beam_search`.
    """

    name = "fid"

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
        """log p(answer | question, all passages), nats, float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        return self._log_prob(self._read(questions, k)[1], labels_of(self.reader, answers))

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The best answer of a beam search over the fused states."""
        began = self.reader.clock()
        if not questions:
            return []
        retrieved, memory = self._read(questions, k)
        best = [hypotheses[0] for hypotheses in self._search(retrieved, memory)]
        weights = memory.attention(pad_labels([[*h.tokens, self.reader.end] for h in best]))
        seconds = (self.reader.clock() - began) / len(questions)
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

    @one_at_a_time
    def attention(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        """How much of the last layer's cross-attention each passage's tokens get while the answer
        is written, averaged over heads and the answer's tokens.

        Returns
        -------
        float32 [B, n], rows sum to 1; 0 where a question has fewer than n passages.
        """
        return self._read(questions, k)[1].attention(labels_of(self.reader, answers))

    @one_at_a_time
    def first_token_scores(self, questions: Sequence[Question], k: int = 5) -> Tensor:
        """The decoder's cross-attention scores before the softmax at the answer's first token,
        averaged over heads, layers and each passage's tokens (Izacard & Grave 2021b, section 3).

        No answer is needed. The softmax of the scores over the passages is the target that a
        retriever is trained to match.

        Returns
        -------
        float32 [B, n], of any sign; -inf where a question has fewer than n passages.
        """
        return self._read(questions, k)[1].first_token_scores()

    @one_at_a_time
    def leave_one_out(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        r"""How much the answer's log-likelihood falls without each passage,

        \[ \log p(y \mid x, z_1, \dots, z_n) - \log p(y \mid x, \{z_j\}_{j \ne i}). \]

        The passages are read once, and the answer n + 1 times.

        Returns
        -------
        float32 [B, n], nats, below 0 where the answer is likelier without the passage; -inf where
        a question has fewer than n passages.

        Raises
        ------
        InputError: a question has a single passage, so that nothing would be left to read.
        """
        retrieved, memory = self._read(questions, k)
        labels = labels_of(self.reader, answers)
        for number, found in enumerate(retrieved, 1):
            if len(found.ids) < 2:
                raise InputError(
                    f"question {number} has one passage, and leaving it out leaves none; "
                    "retrieve at least 2"
                )
        whole = self._log_prob(memory, labels)
        losses = torch.full((len(questions), memory.n), float("-inf"))
        counts = torch.tensor([len(found.ids) for found in retrieved])
        for i in range(memory.n):
            hidden = torch.zeros(losses.shape, dtype=torch.bool)
            hidden[:, i] = shown = counts > i
            losses[shown, i] = (whole - self._log_prob(memory.masked(hidden), labels))[shown]
        return losses

    def _read(self, questions: Sequence[Question], k: int) -> tuple[list[Retrieved], Memory]:
        check(questions, k)
        retrieved = self.retriever.retrieve(questions, k)
        for number, found in enumerate(retrieved, 1):
            if not found.ids:
                raise InputError(
                    f"nothing was retrieved for question {number}; search another index"
                )
        return retrieved, self.reader.read(questions, [r.passages for r in retrieved]).fused()

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
