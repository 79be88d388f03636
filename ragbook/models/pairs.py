"""Encodes (question, passage) pairs, each by itself, and reuses the result for the same pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from ragbook.corpus import Passage
from ragbook.models.limits import Cut
from ragbook.models.prompts import Inputs, Layout, pair


class PairEncoder:
    """An encoder with its tokenizer, which keeps the states of its last call.

    Methods that share one encoder read the same pairs one after the other, and only the first
    computes the states. An encoder that differs from another in its upper layers alone begins with
    the other's states below them. So that the methods' times stay comparable, `clock` adds the time
    that the reused states took to compute.

    Parameters
    ----------
    encoder: a Hugging Face encoder; called with the tokenizer's tensors.
    tokenizer: its fast tokenizer.
    layout: how question and passage become one input.
    cut: where passages that are too long for an input are noted; by default its own notes.
    """

    def __init__(
        self, encoder: Any, tokenizer: Any, layout: Layout = pair, cut: Cut | None = None
    ) -> None:
        self.encoder, self.tokenizer, self.layout = encoder, tokenizer, layout
        self.cut = Cut() if cut is None else cut
        self._key: object = None
        self._read: tuple[Inputs, Tensor] | None = None
        self._below: dict[int, Tensor] = {}  # the states that enter a layer, for other encoders
        self._base: tuple[PairEncoder, int] | None = None
        self._seconds = self._reused = 0.0

    def begin_with(self, base: PairEncoder, layer: int) -> None:
        """Take the states that enter this layer, counted from 0, from another BERT's encoder, which
        has the same embeddings and the same layers below it."""
        self._base = base, layer
        base._below.setdefault(layer, torch.empty(0))
        base.forget()  # it has not kept these states of its last call

    @property
    def encoders(self) -> list[Any]:
        """The encoder, and that of the base if there is one."""
        return [self.encoder, *([] if self._base is None else self._base[0].encoders)]

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
        began, spared = time.perf_counter(), 0.0
        if self._base is None:
            inputs = self.layout(self.tokenizer, questions, passages)
            states, self._below = states_at(self.encoder, inputs.tensors, tuple(self._below))
        else:
            base, layer = self._base
            known = base._key == key and base._read is not None
            inputs, _ = base(questions, passages)
            spent = time.perf_counter() - began
            # The base's layers above are not this encoder's cost; those below are, known or not.
            share = layer / base.encoder.config.num_hidden_layers
            spared = share * base._seconds - (0.0 if known else spent)
            states = upper_states(self.encoder, base._below[layer], inputs.mask, layer)
        self.cut.note_inputs(inputs, passages)
        self._key, self._read = key, (inputs, states)
        self._reused += spared
        self._seconds = time.perf_counter() - began + spared
        return self._read


def states_at(
    encoder: Any, tensors: dict[str, Tensor], layers: Sequence[int] = (), chunk: int = 32
) -> tuple[Tensor, dict[int, Tensor]]:
    """The encoder's states of all inputs, float32 [N, L, d], and those that enter some layers.

    Inputs are sorted by length and each chunk is cut to its longest input, so that little padding
    is computed; the states of padding are zero. Gradients reach the encoder.

    Parameters
    ----------
    tensors: those of `Inputs`, int64 [N, L] each.
    layers: which layers' inputs are kept too, counted from 0.
    chunk: inputs computed at a time.
    """
    mask = tensors["attention_mask"]
    shape = (*mask.shape, encoder.config.hidden_size)
    states = torch.zeros(shape, device=encoder.device)
    below = {layer: torch.zeros(shape, device=encoder.device) for layer in layers}
    for rows, longest in _chunks(mask, chunk):
        piece = {n: value[rows, :longest].to(encoder.device) for n, value in tensors.items()}
        real = mask[rows, :longest, None].to(encoder.device)
        out = encoder(**piece, output_hidden_states=bool(layers))
        states[rows, :longest] = out.last_hidden_state.float() * real
        for layer, kept in below.items():
            kept[rows, :longest] = out.hidden_states[layer].float() * real
    return states, below


def upper_states(encoder: Any, below: Tensor, mask: Tensor, first: int, chunk: int = 32) -> Tensor:
    """A BERT's states from those that enter one of its layers, float32 [N, L, d] both.

    Parameters
    ----------
    below: as `states_at` keeps them.
    mask: int64 [N, L], 1 on real tokens.
    first: the layer that they enter, counted from 0.
    chunk: inputs computed at a time.
    """
    states = torch.zeros_like(below)
    for rows, longest in _chunks(mask, chunk):
        hidden = below[rows, :longest].to(encoder.dtype)
        real = mask[rows, :longest].to(encoder.device)
        attended = create_bidirectional_mask(
            config=encoder.config, inputs_embeds=hidden, attention_mask=real
        )
        for layer in encoder.encoder.layer[first:]:
            hidden = layer(hidden, attended)
        states[rows, :longest] = hidden.float() * real[:, :, None]
    return states


def _chunks(mask: Tensor, chunk: int) -> list[tuple[Tensor, int]]:
    """Rows of similar length, shortest first, with the longest of each chunk."""
    lengths = mask.sum(1)
    order = torch.argsort(lengths, stable=True)
    return [(rows, int(lengths[rows].max())) for rows in order.split(chunk)]
