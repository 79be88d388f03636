"""The nearest keys of a query by squared L2: exactly, or by Faiss's inverted file with codes.

Exact search goes through the keys in blocks, so that any number of keys can stay on the disk. The
nearest neighbour comes first, and of equal ones the first row, also where the list is cut. So even
equal keys (every text begins with the same one) give the same neighbours on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ragbook.errors import InputError
from ragbook.index.factories import (
    FEWEST_PER_CENTROID,
    inverted_lists,
    make_index,
    training_size,
)

QUERIES, KEYS = 256, 32_768
"""Rows and columns of a block of distances: 32 MB of float32."""

CODE_BYTES, PROBES = 64, 32
"""For the approximate index: bytes of a key's code, and the number of lists that a search reads."""

FEWEST = FEWEST_PER_CENTROID * 256
"""The fewest keys to train on; with fewer Faiss warns about the 256 values of a code's byte."""

NONE = -1
"""The row given where there is no neighbour; the distance there is inf."""


SAMPLE, LARGE = 256, 4
"""A component is large and nearly constant if its median over SAMPLE keys is more than LARGE times
as far from 0 as keys commonly are from their medians."""


def exact(keys: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    r"""The k nearest keys by \(\lVert q \rVert^2 - 2 q \cdot k + \lVert k \rVert^2\), in float32.

    Keys and queries are first moved by `centre`, which changes no distance: the difference of large
    squares has few correct digits, and states of many language models have a few components that
    are large and the same in all of them.

    Parameters
    ----------
    keys: float16 or float32 [M, d], in memory or mapped.
    queries: float32 [N, d].
    k: neighbours of each query; all M where there are fewer.

    Returns
    -------
    (squared distances float32 [N, k], rows int64 [N, k]).

    Raises
    ------
    InputError: a key is not finite, so the file that holds it is damaged.
    """
    k = min(k, len(keys))
    middle = centre(keys[:KEYS])
    queries = queries - middle
    asked = torch.from_numpy(queries)
    distances = np.empty((len(queries), 0), np.float32)  # without the term ||q||^2
    rows = np.empty((len(queries), 0), np.int64)
    for first in range(0, len(keys), KEYS):
        block = torch.from_numpy(_floats(keys[first : first + KEYS]))
        block -= torch.from_numpy(middle)
        squares = torch.linalg.vecdot(block, block)
        if not squares.isfinite().all():
            raise InputError(
                f"One of the keys {first:,} to {first + len(block) - 1:,} has an entry that is not "
                "a finite number, so the datastore is damaged; build it again."
            )
        near, place = [], []
        for some in asked.split(QUERIES):
            found = torch.addmm(squares, some, block.T, alpha=-2).numpy()
            chosen = _nearest(found, min(k, len(block)))
            near.append(np.take_along_axis(found, chosen, 1))
            place.append(chosen + first)
        distances = np.concatenate([distances, np.concatenate(near)], axis=1)
        rows = np.concatenate([rows, np.concatenate(place)], axis=1)
        chosen = _nearest(distances, min(k, distances.shape[1]))
        distances = np.take_along_axis(distances, chosen, 1)
        rows = np.take_along_axis(rows, chosen, 1)
    order = np.argsort(distances, axis=1, kind="stable")  # until here the rows ascend
    distances = np.take_along_axis(distances, order, 1) + np.square(queries).sum(1, keepdims=True)
    return np.maximum(distances, 0), np.take_along_axis(rows, order, 1)


def centre(keys: np.ndarray) -> np.ndarray:
    """The medians of the components that are large and nearly constant, and 0 for all others:
    float32 [d], for keys [M, d]. All are 0 if the squares of these medians would cost a distance
    less than a digit.

    The medians are rounded, no more than half as far as keys commonly are from them, to multiples
    of a power of two. So whole numbers, and keys without such components, stay exactly what they
    are.
    """
    sample = np.asarray(keys[:: max(1, len(keys) // SAMPLE)], dtype=np.float32)
    middle = np.median(sample, axis=0) if len(sample) else np.zeros(keys.shape[1])
    spread = float(np.mean(np.median(np.abs(sample - middle), axis=0))) if len(sample) else 0.0
    if not (np.isfinite(middle).all() and np.isfinite(spread)):
        return np.zeros(keys.shape[1], np.float32)  # damaged; the search will say so
    large = np.abs(middle) > LARGE * spread
    if np.square(middle[large]).sum() <= 10 * len(middle) * spread**2:
        return np.zeros(keys.shape[1], np.float32)
    step = 2.0 ** np.floor(np.log2(spread)) if spread else 0.0
    rounded = step * np.round(middle / step) if step else middle
    return np.where(large, rounded, 0).astype(np.float32)


def _nearest(distances: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k smallest numbers of each row [N, M], ascending: int64 [N, k]; of equal
    numbers the first ones."""
    edge = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]
    inside = distances <= edge
    spare = np.count_nonzero(inside, axis=1) - k
    for row in np.flatnonzero(spare):
        level = np.flatnonzero(distances[row] == edge[row])
        inside[row, level[-spare[row] :]] = False
    N, M = distances.shape
    return np.flatnonzero(inside).reshape(N, k) - M * np.arange(N)[:, None]


def recomputed(
    keys: np.ndarray, queries: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours of an approximate search, ordered by the exact squared distances of their
    keys: (distances float32 [N, k], rows int64 [N, k])."""
    distances = np.full(rows.shape, np.inf, np.float32)
    for number, (query, own) in enumerate(zip(queries, rows, strict=True)):
        there = own != NONE
        apart = _floats(keys[own[there]])
        apart -= query
        distances[number, there] = np.einsum("ij,ij->i", apart, apart)
    order = np.lexsort((rows, distances), axis=1)
    return np.take_along_axis(distances, order, 1), np.take_along_axis(rows, order, 1)


def _floats(keys: np.ndarray) -> np.ndarray:
    """Keys as new float32 numbers, which torch converts several times as fast as numpy."""
    writable = keys if keys.flags.writeable else np.array(keys)  # torch warns of others
    return torch.from_numpy(writable).to(torch.float32, copy=True).numpy()


def train_ivfpq(keys: np.ndarray) -> Any:
    """A Faiss inverted file over the keys: cells by squared L2, and in them a code for each key.

    The number of cells and the training are as for a passage index (`factories`); a code has up to
    CODE_BYTES bytes. In memory are the codes and the keys to train on, which are drawn with a fixed
    seed.

    Raises
    ------
    InputError: there are fewer than FEWEST keys.
    """
    count, dimension = keys.shape
    if count < FEWEST:
        raise InputError(
            f"{count:,} keys are too few to train an approximate index, which needs {FEWEST:,}; "
            "use exact search for so few."
        )
    code = max(m for m in range(1, CODE_BYTES + 1) if dimension % m == 0)
    index = make_index(f"IVF{inverted_lists(count)},PQ{code}", dimension, "l2", count)
    chosen = np.random.default_rng(0).choice(count, training_size(index, count), replace=False)
    index.train(_floats(keys[np.sort(chosen)]))
    for first in range(0, count, KEYS):
        index.add(_floats(keys[first : first + KEYS]))
    return index


def approximate(
    index: Any, queries: np.ndarray, k: int, probes: int = PROBES
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest keys by their codes: (squared distances float32 [N, k], rows int64 [N, k]).

    If the cells that are searched hold fewer than k keys, the rest is inf and NONE.
    """
    index.nprobe = min(probes, index.nlist)
    distances, rows = index.search(queries, min(k, index.ntotal))
    return np.where(rows == NONE, np.float32(np.inf), distances), rows


def recall(rows: np.ndarray, exact_rows: np.ndarray) -> float:
    """The share of the exact neighbours [N, k] that a search found [N, k], over all queries."""
    return float(np.mean([np.isin(e, r).mean() for r, e in zip(rows, exact_rows, strict=True)]))
