"""Encodes (question, passage) pairs, each by itself, and reuses the result for the same pairs."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import create_bidirectional_mask

from ragbook.corpus import Passage
from ragbook.models.limits import Cut
from ragbook.models.prompts import Inputs, Layout, pair

BUDGET = 256 * 2**20
"""Bytes of states that a `Below` keeps: some 1,100 pairs of 150 tokens at the bundled width."""

TOKENS = 1024
"""The most tokens, padding included, that a CPU computes at a time. Tensors of more tokens do
not stay in its caches, and the largest get new memory from the operating system every time."""


class PairEncoder:
    """An encoder with its tokenizer, which keeps the states of its last call.

    Methods that share one encoder read the same pairs one after the other, and only the first
    computes the states. Encoders that differ in their upper layers alone share the states below
    them, pair by pair (`Below`). So that the methods' times stay comparable, `clock` adds the time
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
        self._shared: dict[int, Below] = {}  # what other encoders begin with, by layer
        self._below: Below | None = None  # what this one begins with
        self._seconds = self._reused = 0.0

    def begin_with(self, base: PairEncoder, layer: int) -> None:
        """Take the states that enter this layer, counted from 0, from another BERT's encoder, which
        has the same embeddings and the same layers below it. That one begins with them as well."""
        self._below = base._shared.setdefault(layer, Below(base.encoder, layer))
        base._below = base._shared[max(base._shared)]

    @property
    def encoders(self) -> list[Any]:
        """The encoder, and the one that computes the layers below if that is another."""
        return [self.encoder, *([] if self._below is None else [self._below.encoder])]

    def clock(self) -> float:
        """A time in seconds, as if kept states were computed again whenever they are reused; only
        differences between two calls have a meaning."""
        return time.perf_counter() + self._reused

    def forget(self) -> None:
        """Drop the kept states, so that the next call encodes its pairs in any case."""
        self._key = self._read = None
        if self._below is not None:
            self._below.forget()

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
        inputs = self.layout(self.tokenizer, questions, passages)
        if self._below is None:
            states = states_at(self.encoder, inputs.tensors)
        else:
            below, spared = self._below(inputs.tensors)
            states = upper_states(self.encoder, below, inputs.mask, self._below.layer)
        self.cut.note_inputs(inputs, passages)
        self._key, self._read = key, (inputs, states)
        self._reused += spared
        self._seconds = time.perf_counter() - began + spared
        return self._read


class Below:
    """The states that enter one layer of a BERT, kept for the inputs that were read last.

    Methods retrieve much the same passages for a question, though not all the same, so their
    encoders read many inputs that another has read.

    Parameters
    ----------
    encoder: its embeddings and the layers below `layer` are used.
    layer: counted from 0.
    budget: bytes of states to keep; the least recently used leave first.
    """

    def __init__(self, encoder: Any, layer: int, budget: int = BUDGET) -> None:
        self.encoder, self.layer, self.budget = encoder, layer, budget
        self._kept: OrderedDict[bytes, tuple[Tensor, float]] = OrderedDict()
        self._bytes = 0

    def forget(self) -> None:
        """Drop the kept states."""
        self._kept.clear()
        self._bytes = 0

    def __call__(self, tensors: dict[str, Tensor]) -> tuple[Tensor, float]:
        """The states of all inputs, and the seconds that those of them took which were kept.

        Parameters
        ----------
        tensors: those of `Inputs`, int64 [N, L] each, padding at the end.

        Returns
        -------
        (float32 [N, L, d], zero on padding; seconds).
        """
        lengths = tensors["attention_mask"].sum(1).tolist()
        rows = torch.stack(list(tensors.values()), dim=1)
        names = [row[:, :n].numpy().tobytes() for row, n in zip(rows, lengths, strict=True)]
        new = torch.tensor([at for at, name in enumerate(names) if name not in self._kept])
        shape = (*tensors["attention_mask"].shape, self.encoder.config.hidden_size)
        states, spared = torch.zeros(shape, device=self.encoder.device), 0.0
        for at, name in enumerate(names):
            if name in self._kept:
                self._kept.move_to_end(name)
                kept, seconds = self._kept[name]
                states[at, : lengths[at]] = kept.to(states.device)
                spared += seconds
        if len(new):
            began = time.perf_counter()
            chosen = {name: value[new] for name, value in tensors.items()}
            states[new] = lower_states(self.encoder, chosen, self.layer)
            seconds = time.perf_counter() - began
            total = sum(lengths[at] for at in new.tolist())
            for at in new.tolist():
                kept = states[at, : lengths[at]].clone()
                self._keep(names[at], kept, seconds * lengths[at] / total)
        return states, spared

    def _keep(self, name: bytes, states: Tensor, seconds: float) -> None:
        if name in self._kept:  # an input that is there twice
            return
        self._kept[name] = states, seconds
        self._bytes += states.nbytes
        while self._bytes > self.budget:
            _, (dropped, _) = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes


def states_at(encoder: Any, tensors: dict[str, Tensor], chunk: int = 32) -> Tensor:
    """The encoder's states of all inputs, float32 [N, L, d].

    Inputs are sorted by length and each chunk is cut to its longest input, so that little padding
    is computed; the states of padding are zero. Gradients reach the encoder.

    Parameters
    ----------
    tensors: those of `Inputs`, int64 [N, L] each.
    chunk: the most inputs computed at a time; on a CPU they also have at most `TOKENS` tokens,
        unless a single input has more.
    """
    mask = tensors["attention_mask"]
    states = torch.zeros(*mask.shape, encoder.config.hidden_size, device=encoder.device)
    for rows, longest in _chunks(mask, chunk, encoder.device):
        piece = {n: value[rows, :longest].to(encoder.device) for n, value in tensors.items()}
        real = mask[rows, :longest, None].to(encoder.device)
        states[rows, :longest] = encoder(**piece).last_hidden_state.float() * real
    return states


def lower_states(encoder: Any, tensors: dict[str, Tensor], layer: int, chunk: int = 32) -> Tensor:
    """The states that enter a BERT's layer, counted from 0, float32 [N, L, d]; otherwise as
    `states_at`."""
    mask = tensors["attention_mask"]
    states = torch.zeros(*mask.shape, encoder.config.hidden_size, device=encoder.device)
    for rows, longest in _chunks(mask, chunk, encoder.device):
        piece = {n: value[rows, :longest].to(encoder.device) for n, value in tensors.items()}
        real = piece.pop("attention_mask")
        hidden = _through(encoder, encoder.embeddings(**piece), real, slice(layer))
        states[rows, :longest] = hidden.float() * real[:, :, None]
    return states


def upper_states(encoder: Any, below: Tensor, mask: Tensor, first: int, chunk: int = 32) -> Tensor:
    """A BERT's states from those that enter one of its layers, float32 [N, L, d] both.

    Parameters
    ----------
    below: as `lower_states` returns them.
    mask: int64 [N, L], 1 on real tokens.
    first: the layer that they enter, counted from 0.
    chunk: as in `states_at`.
    """
    states = torch.zeros_like(below)
    for rows, longest in _chunks(mask, chunk, encoder.device):
        real = mask[rows, :longest].to(encoder.device)
        hidden = below[rows, :longest].to(encoder.dtype)
        hidden = _through(encoder, hidden, real, slice(first, None))
        states[rows, :longest] = hidden.float() * real[:, :, None]
    return states


def _through(encoder: Any, hidden: Tensor, real: Tensor, layers: slice) -> Tensor:
    """The states [N, L, d] after some of a BERT's layers, where real [N, L] is 1."""
    attended = create_bidirectional_mask(
        config=encoder.config, inputs_embeds=hidden, attention_mask=real
    )
    for layer in encoder.encoder.layer[layers]:
        hidden = layer(hidden, attended)
    return hidden


def _chunks(mask: Tensor, chunk: int, device: torch.device) -> list[tuple[Tensor, int]]:
    """Rows of similar length, shortest first, with the longest of each chunk; see `states_at`."""
    lengths, order = mask.sum(1).sort(stable=True)
    longest = lengths.tolist()
    sizes = [1]
    for length in longest[1:]:
        if sizes[-1] == chunk or (device.type == "cpu" and (sizes[-1] + 1) * length > TOKENS):
            sizes.append(0)
        sizes[-1] += 1
    ends = [end - 1 for end in accumulate(sizes)]
    return [(rows, longest[end]) for rows, end in zip(order.split(sizes), ends, strict=True)]
