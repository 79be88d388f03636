r"""Fusion-in-Decoder (Izacard & Grave 2021).

The encoder reads each (question, passage) pair apart; the decoder attends over all their states at
once (section 3). With n passages of L tokens the encoder's self-attention costs \(n L^2\) and not
\((nL)^2\), and the decoder may combine what several passages say.

Cross-attention has no positions, so padding between the passages changes nothing and is left out:
the decoder's keys and values are those of real tokens only (`pack`). Only the original checkpoints
have some (`ragbook.models.checkpoints.fid`), and their readers count the padding that is not there.

FiD has no posterior over passages. What stands in for one here: the decoder's attention while it
writes the answer (`FiD.attention`), its scores before the softmax, from which Izacard & Grave
(2021b, section 3) distil a retriever (`FiD.first_token_scores`), and what the answer loses with a
passage (`FiD.leave_one_out`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.methods.base import Answer, check, held_to, written_answer
from ragbook.methods.decoding import Hypothesis, beam_search
from ragbook.models import SeqReader
from ragbook.models.seq2seq import Memory
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved, Retriever


def fuse(encoder_states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lay the passages' states end to end for the decoder (section 3, figure 2).

    Parameters
    ----------
    encoder_states: [B, n, L, d].
    mask: [B, n, L], 1 on real tokens.

    Returns
    -------
    ([B, n * L, d], [B, n * L]): passage i's tokens stand at i * L to (i + 1) * L - 1.
    """
    return encoder_states.flatten(1, 2), mask.flatten(1, 2)


def pack(encoder_states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse, and leave the padding out: a question's real tokens end to end, in their order.

    Parameters
    ----------
    encoder_states: [B, n, L, d].
    mask: [B, n, L], 1 on real tokens.

    Returns
    -------
    (states [B, P, d], mask [B, P], owner int64 [B, P]), P the greatest number of real tokens of a
    question. The mask is 1 on the first tokens of a row, as many as are real; `owner` names the
    passage of each, 0 to n - 1, and is -1 on padding.
    """
    states, real = fuse(encoder_states, mask)
    longest = int((real != 0).sum(1).max())
    at = torch.argsort((real == 0).long(), dim=1, stable=True)[:, :longest]
    real = real.gather(1, at)
    rows = torch.arange(len(states), device=states.device)[:, None]
    return states[rows, at], real, torch.where(real != 0, at // mask.shape[2], -1)


def passage_sums(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """The sums [B, n] over each passage's tokens of values [B, P], `owner` as `pack` gives it."""
    sums = values.new_zeros(len(values), n + 1)
    return sums.scatter_add(1, torch.where(owner < 0, n, owner), values)[:, :n]


@dataclass(frozen=True)
class _Read:
    """What was retrieved for B questions, n passages at most, encoded once and fused."""

    retrieved: list[Retrieved]
    memory: Memory  # of B inputs
    owner: Tensor  # int64 [B, P]: see `pack`
    n: int


class FiD:
    """Answers from all passages at once; evidence is the decoder's pooled cross-attention.

    Parameters
    ----------
    reader: any seq2seq model.
    retriever: gives the passages; questions may have different numbers of them.
    beams: prefixes kept for each question; 1 is greedy decoding, as in the paper.
    max_length: longest answer in tokens.
    verbatim: an answer is a run of words of one of the passages.
    length_penalty: of the beam search; see `beam_search`.
    """

    name = "fid"

    def __init__(
        self,
        reader: SeqReader,
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
        """log p(answer | question, all passages), float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        return self._log_prob(self._read(questions, k).memory, self._labels(answers))

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The best answer of a beam search over the fused states."""
        began = self.reader.pairs.clock()
        if not questions:
            return []
        read = self._read(questions, k)
        best = [hypotheses[0] for hypotheses in self._search(read)]
        labels = self.reader.pad_labels([[*h.tokens, self.reader.end] for h in best])
        weights = self._attention(read, labels)
        seconds = (self.reader.pairs.clock() - began) / len(questions)
        return [
            written_answer(q, h, r, w, self.reader.tokenizer, seconds)
            for q, h, r, w in zip(questions, best, read.retrieved, weights, strict=True)
        ]

    @one_at_a_time
    def generate(
        self, questions: Sequence[Question], k: int = 5, num_return_sequences: int = 1
    ) -> list[list[Hypothesis]]:
        """For each question up to `num_return_sequences` different answers, best first.

        `k` is the number of passages, which may differ from call to call. Fewer come back where the
        beams found fewer.
        """
        if not questions:
            return []
        found = self._search(self._read(questions, k))
        return [hypotheses[:num_return_sequences] for hypotheses in found]

    @one_at_a_time
    def attention(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        """How much of the last layer's cross-attention each passage's tokens get while the answer
        is written, its heads and the answer's tokens averaged.

        Returns
        -------
        float32 [B, n], rows sum to 1; 0 where a question has fewer than n passages.
        """
        return self._attention(self._read(questions, k), self._labels(answers))

    @one_at_a_time
    def first_token_scores(self, questions: Sequence[Question], k: int = 5) -> Tensor:
        """The decoder's cross-attention scores before the softmax at the answer's first token,
        averaged over heads, layers and each passage's tokens (Izacard & Grave 2021b, section 3).

        They need no answer; their softmax over the passages is what a retriever is taught by.

        Returns
        -------
        float32 [B, n], of any sign; -inf where a question has fewer than n passages.
        """
        read = self._read(questions, k)
        owner = read.owner.cpu()
        scores = self.reader.first_token_scores(read.memory).cpu()
        tokens = passage_sums(torch.ones_like(scores), owner, read.n)
        means = passage_sums(scores, owner, read.n) / tokens.clamp_min(1)
        return means.masked_fill(tokens == 0, float("-inf"))

    @one_at_a_time
    def leave_one_out(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        r"""What the answer's log-likelihood loses without each passage,

        \[ \log p(y \mid x, z_1, \dots, z_n) - \log p(y \mid x, \{z_j\}_{j \ne i}). \]

        The passages are encoded once, and the decoder reads the answer n + 1 times.

        Returns
        -------
        float32 [B, n], nats, below 0 where the answer is likelier without the passage; -inf where
        a question has fewer than n passages.

        Raises
        ------
        InputError: a question has a single passage, so that nothing would be left to read.
        """
        read, labels = self._read(questions, k), self._labels(answers)
        for number, found in enumerate(read.retrieved, 1):
            if len(found.ids) < 2:
                raise InputError(
                    f"question {number} has one passage, and leaving it out leaves none; "
                    "retrieve at least 2"
                )
        whole = self._log_prob(read.memory, labels)
        losses = torch.full((len(questions), read.n), float("-inf"))
        for i in range(read.n):
            rest = read.memory.masked(read.memory.mask * (read.owner != i))
            shown = (read.owner == i).any(1).cpu()
            losses[shown, i] = (whole - self._log_prob(rest, labels))[shown]
        return losses

    def _read(self, questions: Sequence[Question], k: int) -> _Read:
        check(questions, k)
        retrieved = self.retriever.retrieve(questions, k)
        for number, found in enumerate(retrieved, 1):
            if not found.ids:
                raise InputError(
                    f"nothing was retrieved for question {number}; search another index"
                )
        states, mask = self.reader.encode_documents(questions, [r.passages for r in retrieved])
        packed, real, owner = pack(states, mask)
        return _Read(retrieved, self.reader.memory(packed, real, owner), owner, states.shape[1])

    def _labels(self, answers: Sequence[str]) -> Tensor:
        return self.reader.pad_labels(self.reader.answer_ids(answers))

    def _log_prob(self, memory: Memory, labels: Tensor) -> Tensor:
        return self.reader.token_log_probs(memory, labels).sum(-1)

    def _attention(self, read: _Read, labels: Tensor) -> Tensor:
        """See `attention`; labels [B, T]."""
        weights = self.reader.cross_attention(read.memory, labels)
        sums = passage_sums(weights, read.owner, read.n).cpu()
        return sums / sums.sum(-1, keepdim=True)

    def _search(self, read: _Read) -> list[list[Hypothesis]]:
        return beam_search(
            self.reader.continuation(read.memory),
            len(read.retrieved),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            held_to(self.reader, [r.passages for r in read.retrieved], self.verbatim),
            self.length_penalty,
        )
