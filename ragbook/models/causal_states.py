"""The states of pieces of prompts: what a causal model computes for each, and keeps.

See `ragbook.models.causal`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

BATCH_TOKENS, CPU_TOKENS = 4096, 1024
"""The most tokens in one forward pass, padding included; fewer on a CPU, to stay in its caches."""

Piece = tuple[int, ...]
"""The tokens of a piece of a prompt."""

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, [..., heads, L, d]."""


@dataclass(frozen=True)
class PassageStates:
    """What the model computes for one piece of a prompt, L tokens."""

    ids: Piece
    layers: Layers  # [heads, L, d] each
    keys: Tensor  # float32 [L, d]: what kNN-LM stores; see `ragbook.models.lm.key_module`
    seconds: float  # the time it took to read the piece

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return self.keys.nbytes + sum(k.nbytes + v.nbytes for k, v in self.layers)


def joined(first: PassageStates, second: PassageStates) -> PassageStates:
    """One piece of two, of which the second was read after the first."""
    return PassageStates(
        first.ids + second.ids,
        [
            (torch.cat([k, more_k], 1), torch.cat([v, more_v], 1))
            for (k, v), (more_k, more_v) in zip(first.layers, second.layers, strict=True)
        ],
        torch.cat([first.keys, second.keys]),
        first.seconds + second.seconds,
    )


def layers_of(cache: Any) -> Layers:
    """The keys and values that a cache holds, [R, heads, L, d] a layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def cache_of(layers: Layers) -> DynamicCache:
    """A cache with these keys and values, [R, heads, L, d] for each layer."""
    cache = DynamicCache()
    for number, (keys, values) in enumerate(layers):
        cache.update(keys, values, number)
    return cache


def cache_after(before: Sequence[Sequence[PassageStates]]) -> tuple[DynamicCache, Tensor]:
    """A cache of R rows, each with the pieces that were read one after the other, and the number of
    their tokens, int64 [R]; the rows of shorter ones are padded at their end."""
    lengths = torch.tensor([sum(len(piece.ids) for piece in row) for row in before])
    longest = int(lengths.max())
    if longest == 0:
        return DynamicCache(), lengths

    def row_of(row: Sequence[PassageStates], layer: int, part: int) -> Tensor:
        whole = torch.cat([piece.layers[layer][part] for piece in row], 1)
        return pad(whole, (0, 0, 0, longest - whole.shape[1]))

    layers = [
        (
            torch.stack([row_of(row, layer, 0) for row in before]),
            torch.stack([row_of(row, layer, 1) for row in before]),
        )
        for layer in range(len(before[0][0].layers))
    ]
    return cache_of(layers), lengths


def batches(ids: Sequence[Sequence[int]], device: torch.device) -> list[list[int]]:
    """Which rows are read in one forward pass: those of similar length, the shortest first, with at
    most BATCH_TOKENS or CPU_TOKENS tokens together, padding included, or a longer row alone."""
    most = CPU_TOKENS if device.type == "cpu" else BATCH_TOKENS
    out: list[list[int]] = []
    for row in sorted(range(len(ids)), key=lambda row: len(ids[row])):
        if not out or (len(out[-1]) + 1) * len(ids[row]) > most:
            out.append([])
        out[-1].append(row)
    return out


class ReadsPieces(Protocol):
    """The parts of a causal model that read pieces; see `ragbook.models.causal.CausalReader`."""

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        ...

    def states(
        self, pieces: Sequence[Piece], before: Sequence[Sequence[PassageStates]]
    ) -> list[PassageStates]:
        """Read pieces in one forward pass, each after the beginning and those given for it."""
        ...


class KeptStates:
    """The states of passages, read when they are first needed and kept within a budget.

    Parameters
    ----------
    reader: what reads them.
    budget: bytes of keys and values that are kept between calls; the least recently used are
        dropped first.
    """

    def __init__(self, reader: ReadsPieces, budget: int) -> None:
        self.reader, self.budget = reader, budget
        self.reused = 0.0
        """Seconds that it took to read what was then used again."""
        self._kept: OrderedDict[Piece, PassageStates] = OrderedDict()

    def alone(self, wanted: Sequence[Piece]) -> dict[Piece, PassageStates]:
        """The states of passages, each read directly after the beginning."""
        found: dict[Piece, PassageStates] = {}
        for ids in wanted:
            if ids in self._kept and ids not in found:
                self._kept.move_to_end(ids)
                found[ids] = self._kept[ids]
                self.reused += found[ids].seconds
        new = [ids for ids in dict.fromkeys(wanted) if ids not in found]
        for rows in batches(new, self.reader.device):
            batch = [new[row] for row in rows]
            read = self.reader.states(batch, [[]] * len(batch))
            found.update(zip(batch, read, strict=True))
            self._kept.update(zip(batch, read, strict=True))
        total = sum(states.nbytes for states in self._kept.values())
        while self._kept and total > self.budget:
            total -= self._kept.popitem(last=False)[1].nbytes
        return found

    def together(self, texts: Sequence[Sequence[Piece]]) -> list[PassageStates]:
        """The states of texts, each of passages one after the other, in view of those before.

        A text's first passage is read as if it were alone, and can be used again; what depends on
        the passages before it is not kept.
        """
        first = self.alone([text[0] for text in texts])
        out = [first[text[0]] for text in texts]
        rest = {
            row: tuple(token for passage in text[1:] for token in passage)
            for row, text in enumerate(texts)
            if len(text) > 1
        }
        rows = list(rest)
        for chosen in batches([rest[row] for row in rows], self.reader.device):
            own = [rows[at] for at in chosen]
            read = self.reader.states([rest[row] for row in own], [[out[row]] for row in own])
            for row, states in zip(own, read, strict=True):
                out[row] = joined(out[row], states)
        return out

    def forget(self) -> None:
        """Drop all that is kept."""
        self._kept.clear()
