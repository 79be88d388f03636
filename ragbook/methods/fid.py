r"""Fusion-in-Decoder (Izacard & Grave 2021).

The encoder reads each (question, passage) pair apart; the decoder attends over all their states at
once (section 3). With n passages of L tokens the encoder's self-attention costs \(n L^2\) and not
\((nL)^2\), and the decoder may combine what several passages say.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import Answer, check, held_to, written_answer
from ragbook.methods.decoding import beam_search
from ragbook.models import SeqReader
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


class FiD:
    """Answers from all passages at once; evidence is the decoder's pooled cross-attention.

    With `verbatim`, an answer is a run of words of one of the passages.
    """

    name = "fid"

    def __init__(
        self,
        reader: SeqReader,
        retriever: Retriever,
        beams: int = 2,
        max_length: int = 16,
        verbatim: bool = False,
    ) -> None:
        self.reader, self.retriever = reader, retriever
        self.beams, self.max_length, self.verbatim = beams, max_length, verbatim
        self.parameters = reader.parameters

    def _read(
        self, questions: Sequence[Question], k: int
    ) -> tuple[list[Retrieved], Tensor, Tensor, int]:
        check(questions, k)
        retrieved = self.retriever.retrieve(questions, k)
        states, mask = self.reader.encode_documents(questions, [r.passages for r in retrieved])
        return retrieved, *fuse(states, mask), states.shape[2]

    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question, all passages), float32 [B]."""
        _, states, mask, _ = self._read(questions, k)
        labels = self.reader.pad_labels(self.reader.answer_ids(answers))
        return self.reader.token_log_probs(self.reader.memory(states, mask), labels).sum(-1)

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """Beam search over the fused states."""
        began = self.reader.pairs.clock()
        if not questions:
            return []
        retrieved, states, mask, length = self._read(questions, k)
        found = beam_search(
            self.reader.continuation(self.reader.memory(states, mask)),
            len(questions),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            held_to(self.reader, [r.passages for r in retrieved], self.verbatim),
        )
        best = [hypotheses[0] for hypotheses in found]
        attention = self.reader.cross_attention(
            states, mask, self.reader.pad_labels([[*h.tokens, self.reader.end] for h in best])
        )  # [B, n * L]
        weights = attention.reshape(len(questions), -1, length).sum(-1)
        weights = weights / weights.sum(-1, keepdim=True)
        seconds = (self.reader.pairs.clock() - began) / len(questions)
        return [
            written_answer(q, h, r, w, self.reader.tokenizer, seconds)
            for q, h, r, w in zip(questions, best, retrieved, weights, strict=True)
        ]
