"""The interface of a generator: it reads questions with passages and gives answers probabilities.

Methods use models only through this interface. `ragbook.models.seq2seq` implements it for
encoder-decoders and `ragbook.models.causal` for decoder-only models.
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
    """What a generator has read, for B questions with at most n passages each: one row for each
    (question, passage), question by question, or after `fused` one row for each question.

    `seconds` is the time of the work that reading put off and that was done since: for a memory of
    single passages, what all who use it share; for a fused one, what it took over when it was made.
    """

    n: int
    seconds: float

    def fused(self: M) -> M:
        """The memory with all passages of a question in one row, so that every token of an answer
        can attend to all of them (Fusion-in-Decoder). The order of the passages does not matter to
        an encoder-decoder; a decoder-only model may place them one after the other, the best last.
        """
        ...

    def masked(self: M, hidden: Tensor) -> M:
        """A fused memory without some of its passages.

        Parameters
        ----------
        hidden: bool [B, n], true where a passage is left out. Every question keeps at least one.
        """
        ...

    def attention(self, labels: Tensor) -> Tensor:
        """How much each passage is attended to while an answer is written, for a fused memory.

        It is the last layer's attention, averaged over heads and over the answer's tokens without
        the end token, and summed over each passage's tokens.

        Parameters
        ----------
        labels: int64 [B, T], padded with -100.

        Returns
        -------
        float32 [B, n]; rows sum to 1; 0 where a question has fewer than n passages.
        """
        ...

    def first_token_scores(self) -> Tensor:
        """Cross-attention's scores before the softmax at an answer's first token, for a fused
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

    `name` is the model's name in tables; `start` opens every prefix of a search and `end` closes
    every answer, both token ids; `parameters` is the number of weights.
    """

    name: str
    tokenizer: Any
    start: int
    end: int
    parameters: int

    def read(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]] | None = None
    ) -> M:
        """Read each (question, passage) pair by itself; without passages, each question alone.

        Returns
        -------
        A memory of B * n rows, n the largest number of passages of a question, or of B rows without
        passages. If a question has fewer than n passages, its other rows are padding.
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
        """The next-token distribution for a beam search over answers from this memory."""
        ...

    def token_log_probs(self, memory: M, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """log p(y_t | what was read, y_<t) of each label token, nats, float32 [N, T], 0 on padding.

        Parameters
        ----------
        labels: int64 [N, T], padded with -100; see `pad_labels`.
        rows: int64 [N], the memory's row for each label; None where each row has one label, in
            order.
        """
        ...

    def answer_ids(self, text: str) -> list[int]:
        """An answer's token ids as they follow the prompt, the end token last."""
        ...

    def runs(self, text: str) -> list[tuple[list[int], list[bool], list[bool]]]:
        """Every run of whole words of a text, as the tokens of an answer.

        Returns
        -------
        Pieces of the text that together hold all runs. Each piece is its tokens, whether a word
        begins with each token, and whether a word ends with it; a run begins and ends there.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, without special tokens."""
        ...

    def clock(self) -> float:
        """A time in seconds, which also counts the work that is saved by reusing another method's
        results; only differences between two calls have a meaning."""
        ...


def pad_labels(answers: Sequence[Sequence[int]]) -> Tensor:
    """The token ids of answers as one tensor, int64 [B, T], padded with -100."""
    rows = [torch.tensor(one, dtype=torch.long) for one in answers]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def labels_of(generator: Generator[Any], answers: Sequence[str]) -> Tensor:
    """The labels of the texts of answers, int64 [B, T], with the end token, padded with -100."""
    return pad_labels([generator.answer_ids(answer) for answer in answers])
