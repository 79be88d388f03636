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

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.all_at_once import AllAtOnce
from ragbook.methods.base import check
from ragbook.methods.leave_one_out import check_leaves_some
from ragbook.models.fusion import fuse, pack, passage_sums
from ragbook.models.generator import Memory, labels_of
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved

__all__ = ["FiD", "fuse", "pack", "passage_sums"]


class FiD(AllAtOnce):
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
        check(questions, k)
        if not questions:
            return torch.zeros(0, 0)
        retrieved, memory = self._read(questions, k)
        labels = labels_of(self.reader, answers)
        check_leaves_some(retrieved)
        whole = self._log_prob(memory, labels)
        losses = torch.full((len(questions), memory.n), float("-inf"))
        counts = torch.tensor([len(found.ids) for found in retrieved])
        for i in range(memory.n):
            hidden = torch.zeros(losses.shape, dtype=torch.bool)
            hidden[:, i] = shown = counts > i
            losses[shown, i] = (whole - self._log_prob(memory.masked(hidden), labels))[shown]
        return losses

    def _read(self, questions: Sequence[Question], k: int) -> tuple[list[Retrieved], Memory]:
        def anew() -> tuple[list[Retrieved], Memory]:
            retrieved, apart = self._read_apart(questions, k)
            fused = apart.fused()
            self._saved += fused.seconds
            return retrieved, fused

        return self._once(id(self), questions, k, anew, builds_on_last=True)
