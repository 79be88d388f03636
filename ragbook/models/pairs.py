"""Encodes (question, passage) pairs, each by itself, and reuses the result for the same pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Passage
from ragbook.models.prompts import Inputs, Layout, pair


class PairEncoder:
    """An encoder with its tokenizer, which keeps the states of its last call.

    Methods that share one encoder read the same pairs one after the other, and only the first
    computes the states. So that the methods' times stay comparable, `clock` adds the time that the
    reused states took to compute.

    Parameters
    ----------
    encoder: a Hugging Face encoder; called with the tokenizer's tensors.
    tokenizer: its fast tokenizer.
    layout: how question and passage become one input.
    """

    def __init__(self, encoder: Any, tokenizer: Any, layout: Layout = pair) -> None:
        self.encoder, self.tokenizer, self.layout = encoder, tokenizer, layout
        self._key: object = None
        self._read: tuple[Inputs, Tensor] | None = None
        self._seconds = self._reused = 0.0

    def clock(self) -> float:
        """A time in seconds, as if kept states were computed again whenever they are reused; only
        differences between two calls have a meaning."""
        return time.perf_counter() + self._reused

    def forget(self) -> None:
        """Drop the kept states, so that the next call encodes its pairs in any case."""
        self._key = self._read = None

    @torch.no_grad()
    def __call__(
        self, questions: Sequence[str], passages: Sequence[Passage | None]
    ) -> tuple[Inputs, Tensor]:
        """The tokenised pairs and the encoder's states, float32 [N, L, d]."""
        key = (tuple(questions), tuple(passages))
        if self._read is not None and self._key == key:
            self._reused += self._seconds
            return self._read
        began = time.perf_counter()
        inputs = self.layout(self.tokenizer, questions, passages)
        self._key, self._read = key, (inputs, padded_states(self.encoder, inputs.tensors))
        self._seconds = time.perf_counter() - began
        return self._read


def padded_states(encoder: Any, tensors: dict[str, Tensor], chunk: int = 32) -> Tensor:
    """The encoder's states of all inputs, float32 [N, L, d], computed in chunks of similar length.

    `tensors` are those of `Inputs`, int64 [N, L] each.

    Inputs are sorted by length and each chunk is cut to its longest input, so that little padding
    is computed; the states of padding are zero. Gradients reach the encoder.
    """
    mask = tensors["attention_mask"]
    lengths = mask.sum(1)
    order = torch.argsort(lengths, stable=True)
    states = torch.zeros(*mask.shape, encoder.config.hidden_size, device=encoder.device)
    for rows in order.split(chunk):
        longest = int(lengths[rows].max())
        piece = {n: value[rows, :longest].to(encoder.device) for n, value in tensors.items()}
        real = mask[rows, :longest, None].to(encoder.device)
        states[rows, :longest] = encoder(**piece).last_hidden_state.float() * real
    return states
