"""Encodes a corpus in shards: files `NNNNN.npy`, written by one process or by many.

Every process encodes with a `ShardEncoder`, and shards always have the same bounds. So the vectors
do not depend on which process wrote which shard, nor on how often a build was killed.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from ragbook.corpus.processes import process_pool
from ragbook.errors import InputError
from ragbook.files import write_whole
from ragbook.index.passages import StoredPassages
from ragbook.printable import printable

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.models import Encoder


@dataclass
class ShardEncoder:
    """Encodes shards of a corpus by their number, and finds out which exist already.

    Attributes
    ----------
    folder: where the shards are written.
    batch_size: passages in one forward pass.
    shard_passages: passages in a shard.
    device: `cpu`, for wherever the encoder is; `mps`; or `cuda`, with which each process uses a GPU
        of its own, if there are enough.
    """

    corpus: Corpus | StoredPassages
    encoder: Encoder
    folder: Path
    batch_size: int
    shard_passages: int
    device: str = "cpu"

    def __len__(self) -> int:
        return -(-len(self.corpus) // self.shard_passages)

    def move(self, rank: int) -> None:
        """Prepare to encode as the worker of that rank: on a GPU of its own, or on the CPU with one
        thread, as the workers together use all cores."""
        import torch

        if self.device == "cpu":
            torch.set_num_threads(1)
        elif self.device == "cuda":
            self.encoder.to(f"cuda:{rank % torch.cuda.device_count()}")
        else:
            self.encoder.to(self.device)

    def path(self, number: int) -> Path:
        """The file of the shard with this number, counted from 0."""
        return self.folder / f"{number:05d}.npy"

    def passages(self, number: int) -> int:
        """How many passages a shard has."""
        return min(self.shard_passages, len(self.corpus) - number * self.shard_passages)

    def is_whole(self, number: int) -> bool:
        """Whether the shard's file exists and is readable (a power cut can leave an empty file)."""
        try:
            vectors = np.load(self.path(number), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        shape = (self.passages(number), self.encoder.dimension)
        return vectors.shape == shape and vectors.dtype == np.float32

    def write(self, number: int) -> None:
        """Encode a shard and write its file, which appears only when it is complete.

        Raises
        ------
        InputError: the encoder gave vectors of another shape or that are not finite.
        """
        start = number * self.shard_passages
        passages = self.corpus[start : start + self.shard_passages]
        vectors = np.ascontiguousarray(
            self.encoder.encode_passages(passages, batch_size=self.batch_size), dtype=np.float32
        )
        shape = (len(passages), self.encoder.dimension)
        if vectors.shape != shape or not np.isfinite(vectors).all():
            raise InputError(
                f"Encoder {self.encoder.id} gave vectors of shape {vectors.shape}, or some that "
                f"are not finite, for passages {start} to {start + len(passages) - 1} of "
                f"{self.corpus.name!r}; use an encoder that gives finite ones of shape {shape}."
            )
        # Two workers may write one shard at once, if the first seemed dead and a second got it too.
        write_whole(self.path(number), lambda file: np.save(file, vectors))


WriteShards = Callable[[ShardEncoder, Sequence[int], int], Iterator[int]]
"""(shards, numbers of the missing ones, workers) -> these numbers, each when it is done."""


def encode(shards: ShardEncoder, workers: int, write: WriteShards, progress: bool) -> Vectors:
    """Encode the shards that do not exist yet, and return the vectors of all.

    Parameters
    ----------
    workers: how many processes or actors encode at once.
    write: `write_by_processes`, or a function that encodes on a cluster.
    """
    missing = [number for number in range(len(shards)) if not shards.is_whole(number)]
    done = len(shards.corpus) - sum(map(shards.passages, missing))
    with tqdm(
        total=len(shards.corpus),
        initial=done,
        desc=f"encoding {printable(shards.corpus.name)}",
        unit="passage",
        disable=None if progress else True,
    ) as bar:
        for number in write(shards, missing, workers):
            bar.update(shards.passages(number))
    return Vectors(
        [shards.path(number) for number in range(len(shards))],
        shards.shard_passages,
        (len(shards.corpus), shards.encoder.dimension),
    )


def _write_here(shards: ShardEncoder, missing: Sequence[int]) -> Iterator[int]:
    if shards.device != "cpu":
        shards.encoder.to(shards.device)
    for number in missing:
        shards.write(number)
        yield number


# --- several processes ----------------------------------------------------------------------------

_mine: ShardEncoder | None = None
"""The `ShardEncoder` of a worker process, received once."""


def _start(shards: ShardEncoder, ranks: multiprocessing.Queue) -> None:
    global _mine
    shards.move(ranks.get())
    _mine = shards


def _write(number: int) -> int:
    assert _mine is not None
    _mine.write(number)
    return number


def write_by_processes(shards: ShardEncoder, missing: Sequence[int], workers: int) -> Iterator[int]:
    """Encode shards in this process or, with several `workers`, in as many on this machine.

    Raises
    ------
    InputError: one of the processes died.
    """
    if workers == 1:
        yield from _write_here(shards, missing)
        return
    ranks = multiprocessing.get_context("spawn").Queue()
    for rank in range(workers):
        ranks.put(rank)
    with process_pool(workers, _start, (shards, ranks)) as pool:
        try:
            yield from pool.map(_write, missing)
        except BrokenProcessPool:
            raise InputError(
                "A process that was encoding has died, perhaps because memory was full; the shards "
                "that are done are kept, and the same command goes on from them."
            ) from None


# --- the encoded vectors --------------------------------------------------------------------------


@dataclass(frozen=True)
class Vectors:
    """The vectors of all shards, float32 [n, d], read from the disk when they are used."""

    shards: list[Path]
    shard_passages: int
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self, first: int, last: int, size: int) -> Iterator[np.ndarray]:
        """Rows first to last, in order, at most `size` at a time."""
        for at in range(first, last, size):
            yield self.rows(np.arange(at, min(at + size, last)))

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """The vectors at ascending positions, float32 [len(positions), d]."""
        taken = np.empty((len(positions), self.shape[1]), np.float32)
        number = positions // self.shard_passages
        for shard in np.unique(number):
            own = number == shard
            vectors = np.load(self.shards[shard], mmap_mode="r", allow_pickle=False)
            taken[own] = vectors[positions[own] - shard * self.shard_passages]
        return taken
