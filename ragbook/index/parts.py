"""Searches a part of an index, and merges the results of several parts.

A part holds consecutive passages in one Faiss file. With every type of index, scores are computed
from full vectors: an index of codes proposes `CANDIDATES` times as many passages as are asked for,
and these are ranked again by the stored vectors. So a score means the same in every index, which
methods need that turn scores into probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.errors import InputError
from ragbook.index.factories import inverted_file
from ragbook.index.manifest import Manifest
from ragbook.index.structure import check_codes, check_flat, check_links, check_lists, check_rows

CANDIDATES = 10
"""How many passages an index of codes proposes for each one that is asked for."""

FLAT = {"inner_product": "IndexFlatIP", "l2": "IndexFlatL2"}
"""Faiss's exact index of each metric."""

VECTORS_FILE = "vectors.index"
"""The file with all vectors as Faiss's exact index, beside files that hold only their codes."""

Found = tuple[np.ndarray, np.ndarray]
"""Scores float32 [B, k], highest first, and positions int64 [B, k], -1 where there is no result."""


def part_bounds(passages: int, parts: int) -> list[tuple[int, int]]:
    """For each part, the position of its first passage and the one after its last; the sizes are
    nearly equal."""
    edges = [passages * number // parts for number in range(parts + 1)]
    return list(pairwise(edges))


def faiss_file(number: int, parts: int) -> str:
    """The name of a part's Faiss file."""
    return "faiss.index" if parts == 1 else f"faiss-{number:05d}.index"


def lists_file(number: int, parts: int) -> str:
    """The name of the file with a part's inverted lists."""
    return "faiss.lists" if parts == 1 else f"faiss-{number:05d}.lists"


@dataclass
class Part:
    """Consecutive passages of an index, opened.

    Attributes
    ----------
    index: the Faiss index.
    first: position of its first passage.
    metric: `inner_product` or `l2`.
    vectors: Faiss's exact index of all parts' vectors, memory-mapped, if `index` has only codes.
    looked_through: whether its graph's links have been checked, which the first search does.
    """

    index: Any
    first: int
    metric: str
    vectors: Any = None
    looked_through: bool = False

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, number: int) -> Part:
        """Memory-map a part of an index folder whose manifest has been checked.

        Raises
        ------
        RuntimeError, MemoryError, ValueError, OSError: the file is not a Faiss index, or it is
            damaged.
        """
        import faiss

        parameters = manifest["index"]["parameters"]
        parts = parameters.get("parts", 1)
        path = folder / faiss_file(number, parts)
        passages, dimension = manifest["corpus"]["passages"], manifest["encoder"]["dimension"]
        first, last = part_bounds(passages, parts)[number]
        metric, kind = manifest["encoder"]["metric"], manifest["index"]["type"]
        if kind in FLAT.values():
            check_flat(path, kind, last - first, dimension)
        lists = folder / lists_file(number, parts)
        if lists.name in manifest["files"]:
            # With Faiss's own flags for mapping, a search of such a file crashes. So the lists are
            # mapped here, from the folder's present path and not from the one it was written to.
            index: Any = faiss.read_index(
                str(path), faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_IVF_DATA
            )
            check_lists(index, folder / lists.name)
            mapped: Any = faiss.downcast_InvertedLists(inverted_file(index).invlists)
            mapped.filename, mapped.read_only = str(lists), True
            mapped.do_mmap()
        else:
            # The file is mapped and not read, so that it opens at once and processes share memory.
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        if index.ntotal != last - first or index.d != dimension:
            raise ValueError(f"{path} has another number of vectors or of their dimensions")
        check_codes(index)
        vectors = None
        if VECTORS_FILE in manifest["files"]:
            check_flat(folder / VECTORS_FILE, FLAT[metric], passages, dimension)
            vectors = faiss.read_index(str(folder / VECTORS_FILE), faiss.IO_FLAG_MMAP_IFC)
        part = cls(index, first, metric, vectors)
        part.look_into(parameters.get("effort"))
        return part

    def __len__(self) -> int:
        return self.index.ntotal

    @property
    def is_exact(self) -> bool:
        """Whether the Faiss index compares queries with every full vector."""
        return type(self.index).__name__ in FLAT.values()

    def look_into(self, effort: int | None) -> None:
        """Set how much of an approximate index a search goes through; see `effort_name`."""
        name = effort_name(self.index)
        if effort is not None and name == "nprobe":
            inverted_file(self.index).nprobe = effort
        elif effort is not None and name == "efSearch":
            self.index.hnsw.efSearch = effort

    def search(self, queries: np.ndarray, k: int) -> Found:
        """The k best of this part's passages for each query; see `PassageIndex.search`."""
        k = min(k, len(self))
        if self.is_exact:
            return self._exactly(queries, k)
        proposed = k if self.vectors is None else min(CANDIDATES * k, len(self))
        if not self.looked_through:
            try:
                check_links(self.index)
            except ValueError as error:
                raise InputError(f"The index is damaged ({error}); build it again.") from None
            self.looked_through = True
        scores, rows = self.index.search(queries, proposed)
        check_rows(rows, len(self))
        positions = np.where(rows < 0, rows, rows + self.first)
        if self.vectors is not None:
            scores = self._scores(queries, positions)
        return best([(-scores if self.metric == "l2" else scores, positions)], k)

    def _exactly(self, queries: np.ndarray, k: int) -> Found:
        asked = min(k + 1, len(self))
        while True:
            scores, rows = self.index.search(queries, asked)
            # If several passages have the k-th score, Faiss may return any of them. All must be
            # found to choose the first ones.
            cut = (scores[:, k - 1] == scores[:, -1]) & (rows[:, k - 1] >= 0)
            if asked == len(self) or not cut.any():
                break
            asked = min(2 * asked, len(self))
        if self.metric == "l2":
            scores = -scores  # Faiss gives squared distances, smallest first
        return best([(scores, np.where(rows < 0, rows, rows + self.first))], k)

    def _scores(self, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The candidates' inner products or squared distances by their full vectors, float32
        [B, C], for their positions int64 [B, C]."""
        from faiss import swig_ptr

        scores, positions = np.empty(positions.shape, np.float32), np.ascontiguousarray(positions)
        self.vectors.compute_distance_subset(
            len(queries),
            swig_ptr(queries),
            positions.shape[1],
            swig_ptr(scores),
            swig_ptr(positions),
        )
        return scores

    def read(self, rows: np.ndarray) -> np.ndarray:
        """The vectors float32 [n, d] of the passages at these rows [n] of this part."""
        if self.vectors is not None:
            return self.vectors.reconstruct_batch(rows + self.first)
        return self.index.reconstruct_batch(rows)


def effort_name(index: Any) -> str | None:
    """The setting for how much of an index a search goes through: `nprobe`, the number of inverted
    lists, or `efSearch`, the number of candidates in a graph; None if a search always goes through
    all of it."""
    if inverted_file(index) is not None:
        return "nprobe"
    return "efSearch" if hasattr(index, "hnsw") else None


def best(found: list[Found], k: int) -> Found:
    """The k results with the highest scores of several parts; of equal scores the first in the
    corpus comes first.

    Higher scores are better here for every metric. (Faiss's own function for merging keeps the
    lowest by default, which for inner products are the worst.)
    """
    scores = np.concatenate([each[0] for each in found], axis=1)
    positions = np.concatenate([each[1] for each in found], axis=1)
    scores = np.where(positions < 0, np.float32(-np.inf), scores)
    if scores.shape[1] > k:
        # Sorting takes most of the time, so only those that can be among the best are sorted.
        inside = scores >= np.partition(scores, -k, axis=1)[:, -k, None]
        if np.count_nonzero(inside) == k * len(scores):  # no passages tie with the k-th
            columns = np.flatnonzero(inside).reshape(-1, k)
            scores, positions = scores.ravel()[columns], positions.ravel()[columns]
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def open_parts(folder: Path, manifest: Manifest) -> list[Part]:
    """All parts of an index folder; see `Part.open`."""
    count = manifest["index"]["parameters"].get("parts", 1)
    return [Part.open(folder, manifest, number) for number in range(count)]
