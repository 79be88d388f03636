"""What a causal model has read of prompts: the keys and values of their pieces, joined to rows.

See `ragbook.models.causal`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from ragbook.errors import InputError
from ragbook.models.causal_states import Layers, PassageStates, batches, layers_of
from ragbook.models.fusion import passage_sums
from ragbook.models.rotary import Rotation
from ragbook.models.split_attention import Read

ANSWER = 64
"""How many tokens are left for the answer to a prompt with several passages."""


@dataclass(frozen=True)
class Shown:
    """A piece of a prompt in a row of a memory: its states, and the passage of each token."""

    states: PassageStates
    owner: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Keys and values of S rows, up to the last token before an answer, with padding anywhere."""

    layers: Layers  # [S, heads, L, d] each
    positions: Tensor  # int64 [S, L]
    real: Tensor  # bool [S, L]
    owner: Tensor  # int64 [S, L], the passage of each token; -1 for other tokens
    after: Tensor  # int64 [S], the position of the next token


class Reads(Protocol):
    """The parts of its model that a memory uses; see `ragbook.models.causal.CausalReader`."""

    name: str
    end: int
    rotation: Rotation | None  # how its keys are moved; None where they cannot be

    @property
    def positions(self) -> int | None:
        """How many positions it has; None without a limit."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        ...

    def run_after(
        self,
        read: Read,
        ids: Tensor,
        positions: Tensor,
        real: Tensor,
        logits: int,
        written: DynamicCache | None = None,
    ) -> tuple[Tensor, DynamicCache]:
        """Run the model on new tokens that follow what was read and written."""
        ...

    def last_attention(self, memory: CausalMemory, labels: Tensor) -> Tensor:
        """The last layer's attention while answers are written."""
        ...


class CausalMemory:
    """What a causal model has read; see `ragbook.models.generator.Memory`.

    The passages are read already; the questions are read when the rows are first needed.

    Parameters
    ----------
    reader: the model.
    asked: each question's tokens, without the last token before its answer.
    shown: the pieces of each row. There are B * n rows, question by question, or B.
    n: passages of each question.
    beginning: the beginning of every prompt.
    """

    def __init__(
        self,
        reader: Reads,
        asked: Sequence[Sequence[int]],
        shown: Sequence[Sequence[Shown]],
        n: int,
        beginning: PassageStates,
    ) -> None:
        self.reader, self.asked, self.shown, self.n = reader, asked, shown, n
        self.beginning = beginning
        self.seconds = 0.0

    def fused(self) -> FusedMemory:
        """The n passages of each question, every one with the question after it, in one row."""
        return FusedMemory(self)

    def masked(self, hidden: Tensor) -> FusedMemory:
        """Fused, without some of the passages; see `FusedMemory.masked`."""
        return self.fused().masked(hidden)

    def attention(self, labels: Tensor) -> Tensor:
        """The share of each passage in the last layer's attention, float32 [B, n]; see
        `ragbook.models.generator.Memory.attention`."""
        weights = self.reader.last_attention(self, labels)
        owner = self.rows.owner.to(weights.device)
        sums = passage_sums(weights, owner, self.n).cpu()
        # If the window of sliding attention reaches no passage, all get the same share.
        tokens = passage_sums(torch.ones_like(weights), owner, self.n).cpu()
        sums = torch.where(sums.sum(-1, keepdim=True) > 0, sums, (tokens > 0).float())
        return sums / sums.sum(-1, keepdim=True)

    def first_token_scores(self) -> Tensor:
        """Not defined for a decoder-only model.

        Raises
        ------
        InputError: always.
        """
        raise InputError(
            f"{self.reader.name} is a decoder-only model and has no cross-attention, from whose "
            "scores a retriever could be distilled; name an encoder-decoder"
        )

    @cached_property
    @torch.no_grad()
    def rows(self) -> Rows:
        """The keys and values of every row, with those of its question."""
        began = time.perf_counter()
        reader, S = self.reader, len(self.shown)
        start = self.beginning
        first = len(start.ids)
        per_question = S // len(self.asked)
        widths = [sum(len(piece.owner) for piece in row) for row in self.shown]
        asked = [ids for ids in self.asked for _ in range(per_question)]
        before, longest = first + max(widths, default=0), max(map(len, asked))
        L = before + longest
        positions = torch.zeros(S, L, dtype=torch.long)
        real = torch.zeros(S, L, dtype=torch.bool)
        owner = torch.full((S, L), -1)
        ids = torch.full((S, longest), reader.end)
        positions[:, :first] = torch.arange(first)
        real[:, :first] = True
        after = torch.full((S,), first)
        layers = [
            (k.new_zeros(S, k.shape[0], L, k.shape[2]), v.new_zeros(S, v.shape[0], L, v.shape[2]))
            for k, v in start.layers
        ]
        for (k, v), (own_k, own_v) in zip(layers, start.layers, strict=True):
            k[:, :, :first], v[:, :, :first] = own_k, own_v
        for s, (row, tokens) in enumerate(zip(self.shown, asked, strict=True)):
            at = first
            for piece in row:
                end = at + len(piece.owner)
                for (k, v), (own_k, own_v) in zip(layers, piece.states.layers, strict=True):
                    k[s, :, at:end], v[s, :, at:end] = own_k, own_v
                positions[s, at:end] = torch.arange(first, first + end - at)
                owner[s, at:end] = torch.tensor(piece.owner)
                real[s, at:end] = True
                after[s] = max(int(after[s]), first + end - at)
                at = end
            ids[s, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
            real[s, before : before + len(tokens)] = True
            positions[s, before:] = after[s] + torch.arange(longest)
            after[s] += len(tokens)
        rows = Rows(layers, positions, real, owner, after)
        if longest:
            so_far = [(k[:, :, :before], v[:, :, :before]) for k, v in layers]
            for each in batches(asked, reader.device):
                part, t = torch.tensor(each), max(1, len(asked[each[-1]]))
                end = before + t
                cache = reader.run_after(
                    Read(so_far, part), ids[part, :t], positions[part, :end], real[part, :end], 0
                )[1]
                for (k, v), (new_k, new_v) in zip(layers, layers_of(cache), strict=True):
                    k[part, :, before:end] = new_k[:, :, -t:]
                    v[part, :, before:end] = new_v[:, :, -t:]
        self.seconds += time.perf_counter() - began
        return rows


class FusedMemory(CausalMemory):
    """The rows of a question's passages end to end in one row, the best passage last.

    What was read of a passage and of the question after it is taken as it is, with the beginning
    once; the last token before the answer is the first that attends to all. Where the model's keys
    can be moved, and if there is room, the positions are those of one text; otherwise all passages
    keep theirs, and what follows comes after the longest.

    Parameters
    ----------
    apart: the memory of B * n rows.
    hidden: bool [B, n], true where a passage is left out.
    """

    def __init__(self, apart: CausalMemory, hidden: Tensor | None = None) -> None:
        super().__init__(apart.reader, apart.asked, apart.shown, apart.n, apart.beginning)
        self.apart, self.hidden, self.seconds = apart, hidden, apart.seconds

    def masked(self, hidden: Tensor) -> FusedMemory:
        """The same memory without the passages where `hidden` [B, n] is true; nothing is read
        again."""
        return FusedMemory(self.apart, hidden)

    def _kept(self) -> list[list[int]]:
        """Each question's rows in the memory of single passages, the best last."""
        there = torch.tensor([bool(row) for row in self.shown]).reshape(-1, self.n)
        there[~there.any(1), 0] = True  # without passages the question is alone
        if self.hidden is not None:
            there &= ~self.hidden
        return [
            [question * self.n + z for z in reversed(row.nonzero()[:, 0].tolist())]
            for question, row in enumerate(there)
        ]

    @cached_property
    def rows(self) -> Rows:
        """The keys and values of every row, without padding between the passages."""
        apart, first, kept = self.apart.rows, len(self.beginning.ids), self._kept()
        own = apart.real.sum(1) - first  # tokens after the beginning
        lengths = [first + sum(int(own[row]) for row in rows) for rows in kept]
        B, L = len(kept), max(lengths)
        positions, owner = torch.zeros(B, L, dtype=torch.long), torch.full((B, L), -1)
        real, after = torch.arange(L) < torch.tensor(lengths)[:, None], torch.zeros(B).long()
        layers = [
            (k.new_zeros(B, k.shape[1], L, k.shape[3]), v.new_zeros(B, v.shape[1], L, v.shape[3]))
            for k, v in apart.layers
        ]
        rotation, most = self.reader.rotation, self.reader.positions
        for b, rows in enumerate(kept):
            moves = rotation is not None and (most is None or lengths[b] + ANSWER <= most)
            at = by = 0
            for row in rows:
                columns = apart.real[row].nonzero()[:, 0]
                columns = columns[columns >= first] if at else columns
                here = slice(at, at + len(columns))
                for (new_k, new_v), (k, v) in zip(layers, apart.layers, strict=True):
                    keys = k[row][:, columns]
                    new_k[b, :, here] = rotation.moved(keys, by) if rotation and by else keys
                    new_v[b, :, here] = v[row][:, columns]
                positions[b, here] = apart.positions[row, columns] + by
                owner[b, here] = torch.where(columns < first, -1, row % self.n)
                after[b] = max(int(after[b]), int(apart.after[row]) + by)
                at = here.stop
                by += int(own[row]) if moves else 0
        return Rows(layers, positions, real, owner, after)


class CausalContinuation:
    """Next-token distributions of growing answers; see `ragbook.models.generator.NextLogProbs`."""

    def __init__(self, reader: Reads, memory: CausalMemory) -> None:
        self.reader, self.memory = reader, memory
        self.cache: DynamicCache | None = None  # of what was written

    @torch.no_grad()
    def __call__(self, prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
        """log p(next token | what was read, prefix), float32 [R, V]. The start token of every
        prefix is the prompt's last token before the answer."""
        read, t = self.memory.rows, prefixes.shape[1]
        if self.cache is not None:
            self.cache.batch_select_indices(parents.to(self.reader.device))
        written = read.after[rows, None] + torch.arange(t)
        positions = torch.cat([read.positions[rows], written], 1)
        real = torch.cat([read.real[rows], torch.ones_like(written, dtype=torch.bool)], 1)
        logits, self.cache = self.reader.run_after(
            Read(read.layers, rows), prefixes[:, -1:], positions, real, 1, self.cache
        )
        return logits[:, -1].float().log_softmax(-1)
