"""Searching a part of an index, and putting the parts' findings together.

A part holds consecutive passages in one Faiss file. Whatever that file is, the scores that come out
are those of whole vectors: an index of codes proposes `CANDIDATES` times as many passages as are
asked for, and the stored vectors rank these again. So a score means the same in every index, as the
methods need it that make probabilities of scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.index.factories import inverted_file
from ragbook.index.manifest import Manifest

CANDIDATES = 10
"""Passages that an index of codes proposes for each one asked for."""

FLAT = {"inner_product": "IndexFlatIP", "l2": "IndexFlatL2"}
"""Faiss's exact index of each metric."""

VECTORS_FILE = "vectors.index"
"""All vectors as Faiss's exact index, beside files that hold only codes of them."""

Found = tuple[np.ndarray, np.ndarray]
"""Scores float32 [B, k], greatest first, and positions int64 [B, k], -1 where there is none."""


def part_bounds(passages: int, parts: int) -> list[tuple[int, int]]:
    """First passage and the one after the last of each part, of nearly equal sizes."""
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
    index: Faiss's.
    first: position of its first passage.
    metric: `inner_product` or `l2`.
    vectors: Faiss's exact index of all parts' vectors, mapped, where `index` has only codes.
    """

    index: Any
    first: int
    metric: str
    vectors: Any = None

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, number: int) -> Part:
        """Map a part of an index folder whose manifest has been checked.

        Raises
        ------
        RuntimeError, MemoryError: the file is no Faiss index, or it is damaged.
        """
        import faiss

        parameters = manifest["index"]["parameters"]
        parts = parameters.get("parts", 1)
        path = folder / faiss_file(number, parts)
        first, _ = part_bounds(manifest["corpus"]["passages"], parts)[number]
        lists = folder / lists_file(number, parts)
        if lists.name in manifest["files"]:
            # Mapping such a file by Faiss's own flags crashes in the search; its lists are mapped
            # here, where they lie, whatever the folder was called when it was written.
            index: Any = faiss.read_index(
                str(path), faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_IVF_DATA
            )
            mapped: Any = faiss.downcast_InvertedLists(inverted_file(index).invlists)
            mapped.filename, mapped.read_only = str(lists), True
            mapped.do_mmap()
        else:
            # Mapped, not read: opening is instant, and processes share the pages.
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        vectors = None
        if VECTORS_FILE in manifest["files"]:
            vectors = faiss.read_index(str(folder / VECTORS_FILE), faiss.IO_FLAG_MMAP_IFC)
        part = cls(index, first, manifest["encoder"]["metric"], vectors)
        part.look_into(parameters.get("effort"))
        return part

    def __len__(self) -> int:
        return self.index.ntotal

    @property
    def is_exact(self) -> bool:
        """Whether the Faiss index compares with every vector, whole."""
        return type(self.index).__name__ in FLAT.values()

    def look_into(self, effort: int | None) -> None:
        """Set how much of an approximate index a search looks into: see `effort_name`."""
        name = effort_name(self.index)
        if effort is not None and name == "nprobe":
            inverted_file(self.index).nprobe = effort
        elif effort is not None and name == "efSearch":
            self.index.hnsw.efSearch = effort

    def search(self, queries: np.ndarray, k: int) -> Found:
        """The k best of this part's passages for each query, as `PassageIndex.search` has them."""
        k = min(k, len(self))
        if self.is_exact:
            return self._exactly(queries, k)
        proposed = k if self.vectors is None else min(CANDIDATES * k, len(self))
        scores, rows = self.index.search(queries, proposed)
        positions = np.where(rows < 0, rows, rows + self.first)
        if self.vectors is not None:
            scores = self._scores(queries, positions)
        return best([(-scores if self.metric == "l2" else scores, positions)], k)

    def _exactly(self, queries: np.ndarray, k: int) -> Found:
        asked = min(k + 1, len(self))
        while True:
            scores, rows = self.index.search(queries, asked)
            # Of equal scores at the edge Faiss keeps any: all of them must be seen to choose.
            cut = (scores[:, k - 1] == scores[:, -1]) & (rows[:, k - 1] >= 0)
            if asked == len(self) or not cut.any():
                break
            asked = min(2 * asked, len(self))
        if self.metric == "l2":
            scores = -scores  # Faiss gives squared distances, least first
        return best([(scores, np.where(rows < 0, rows, rows + self.first))], k)

    def _scores(self, queries: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """What Faiss's exact index gives of the candidates float32 [B, C] at these positions."""
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
        """The vectors float32 [n, d] of passages by their place in this part."""
        if self.vectors is not None:
            return self.vectors.reconstruct_batch(rows + self.first)
        return self.index.reconstruct_batch(rows)


def effort_name(index: Any) -> str | None:
    """What sets how much of an index a search looks into: `nprobe`, the inverted lists of a search,
    or `efSearch`, the candidates of a walk through the graph; None where all is looked into."""
    if inverted_file(index) is not None:
        return "nprobe"
    return "efSearch" if hasattr(index, "hnsw") else None


def best(found: list[Found], k: int) -> Found:
    """The k greatest of what several parts found; of equal scores the one first in the corpus.

    Greater is better for every metric here. Faiss's own merging takes the least unless it is told
    otherwise, which of inner products leaves the worst.
    """
    scores = np.concatenate([each[0] for each in found], axis=1)
    positions = np.concatenate([each[1] for each in found], axis=1)
    scores = np.where(positions < 0, np.float32(-np.inf), scores)
    if scores.shape[1] > k:
        # Sorting is what takes long, so only those that can be among the best are sorted.
        inside = scores >= np.partition(scores, -k, axis=1)[:, -k, None]
        if np.count_nonzero(inside) == k * len(scores):  # else some are equal at the edge
            columns = np.flatnonzero(inside).reshape(-1, k)
            scores, positions = scores.ravel()[columns], positions.ravel()[columns]
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(positions, order, 1)


def open_parts(folder: Path, manifest: Manifest) -> list[Part]:
    """All parts of an index folder; see `Part.open`."""
    count = manifest["index"]["parameters"].get("parts", 1)
    return [Part.open(folder, manifest, number) for number in range(count)]
