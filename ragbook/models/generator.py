"""What a generator is: it reads questions with passages, and says how probable an answer is.

A method needs nothing else of a model. `ragbook.models.seq2seq` and `ragbook.models.causal`
implement this interface, one for encoder-decoders and one for decoder-only models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from ragbook.corpus import Passage, Question

M = TypeVar("M", bound="Memory")

NextLogProbs = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prefixes int64 [R, t], rows int64 [R], parents int64 [R]) -> log p(next token), float32 [R, V];
see `ragbook.methods.decoding.beam_search`."""


class Memory(Protocol):
    """What a generator has read: one row for each (question, passage), question by question, or one
    row for each question after `fused`. B questions with n passages each at most."""

    n: int

    def fused(self: M) -> M:
        """All passages of a question in one row, so that every token of an answer may attend to all
        of them (Fusion-in-Decoder). The order of the passages changes nothing."""
        ...

    def masked(self: M, hidden: Tensor) -> M:
        """A fused memory without some of its passages.

        Parameters
        ----------
        hidden: bool [B, n], true where a passage is left out. Every question keeps at least one.
        """
        ...

    def attention(self, labels: Tensor) -> Tensor:
        """How much each passage is attended to while an answer is written, of a fused memory.

        The last layer's attention, averaged over heads and over the answer's tokens without the end
        token, and summed over each passage's tokens.

        Parameters
        ----------
        labels: int64 [B, T], padded with -100.

        Returns
        -------
        float32 [B, n]; rows sum to 1; 0 where a question has fewer than n passages.
        """
        ...

    def first_token_scores(self) -> Tensor:
        """Cross-attention's scores before the softmax at an answer's first token, of a fused
        memory, averaged over heads, layers and each passage's tokens (Izacard & Grave 2021b,
        section 3).

        Returns
        -------
        float32 [B, n], of any sign; -inf where a question has fewer than n passages.

        Raises
        ------
        InputError: the model has no cross-attention.
        """
        ...


class Generator(Protocol[M]):
    """A model with its tokenizer and its prompt; inference only, float32 results on the CPU.

    `start` opens every prefix of a search and `end` closes every answer; `parameters` counts the
    weights.
    """

    name: str
    tokenizer: Any
    start: int
    end: int
    parameters: int

    def read(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]] | None = None
    ) -> M:
        """Read each (question, passage) pair apart; without passages, each question alone.

        Returns
        -------
        A memory of B * n rows, n the largest number of passages of a question, or of B rows without
        passages. Where a question has fewer than n passages the rest of its rows mean nothing.
        """
        ...

    def read_together(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> M:
        """Read each question with all of its passages in one prompt, the best one last.

        Passages are given best first. Those that do not fit are left out, the worst first.

        Returns
        -------
        A memory of B rows.
        """
        ...

    def continuation(self, memory: M) -> NextLogProbs:
        """What a beam search over answers from this memory asks for the next token."""
        ...

    def token_log_probs(self, memory: M, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """log p(y_t | what was read, y_<t) of each label token, float32 [N, T], 0 on padding.

        Parameters
        ----------
        labels: int64 [N, T], padded with -100; see `pad_labels`.
        rows: int64 [N], the memory's row that each label is read from; None where there are as many
            rows as labels and each has its own.
        """
        ...

    def answer_ids(self, text: str) -> list[int]:
        """An answer's token ids as they stand after the prompt, the end token last."""
        ...

    def runs(self, text: str) -> list[tuple[list[int], list[bool], list[bool]]]:
        """Every run of whole words of a text as an answer's tokens.

        Returns
        -------
        Pieces that together hold all runs, each as its tokens, whether a word begins with each
        token, and whether a word ends with it. A run begins in a piece where a word begins.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, special ones left out."""
        ...

    def clock(self) -> float:
        """Seconds, to be subtracted from each other; work that another method has already done is
        charged again."""
        ...


def pad_labels(answers: Sequence[Sequence[int]]) -> Tensor:
    """Answers' token ids as one tensor, int64 [B, T], padded with -100."""
    rows = [torch.tensor(one, dtype=torch.long) for one in answers]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def labels_of(generator: Generator[Any], answers: Sequence[str]) -> Tensor:
    """The labels of answers' texts, int64 [B, T], the end token included, padded with -100."""
    return pad_labels([generator.answer_ids(answer) for answer in answers])
