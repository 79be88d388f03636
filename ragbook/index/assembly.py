"""Makes Faiss files from encoded vectors: trained on a sample, filled block by block, merged on the
disk.

Only a block of vectors and the training sample are in memory, except for a graph (HNSW), which is
built in memory as a whole. Inverted lists are filled a block at a time into files,
`stage/NNNNN-NNNNN.block`, and these are merged into one file on the disk; a killed build goes on
after its last complete block.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.files import whole_file
from ragbook.index.encoding import Vectors
from ragbook.index.factories import EXACT, inverted_file, make_index, training_size
from ragbook.index.parts import FLAT, VECTORS_FILE, faiss_file, lists_file, part_bounds

BLOCK = 131_072  # vectors added at a time, and those of one block of inverted lists
_WHOLE = (*FLAT.values(), "IndexHNSWFlat")
"""Types of index that hold the full vectors and return them without further memory."""


def write_faiss_files(
    folder: Path, stage: Path, vectors: Vectors, metric: str, factory: str, parts: int
) -> tuple[str, dict[str, Any]]:
    """Write the Faiss files of an index, and `vectors.index` where they hold only codes.

    Parameters
    ----------
    folder: folder of the index.
    stage: folder for what a killed build can reuse: the trained index and complete blocks.
    vectors: all vectors, float32 [n, d].
    metric: `inner_product` or `l2`.
    factory: Faiss's factory string.
    parts: number of Faiss files.

    Returns
    -------
    Faiss's name of the index, and the manifest's parameters.
    """
    import faiss

    bounds = part_bounds(len(vectors), parts)
    parameters: dict[str, Any] = {}
    if parts > 1:
        parameters["parts"] = parts
    if factory == EXACT:
        for number, (first, last) in enumerate(bounds):
            path = folder / faiss_file(number, parts)
            write_flat(path, FLAT[metric], vectors, first, last)
        return FLAT[metric], parameters
    empty, learnt_from = _trained(stage, vectors, metric, factory)
    parameters |= {"factory": factory, "training_passages": learnt_from}
    for number, (first, last) in enumerate(bounds):
        path = folder / faiss_file(number, parts)
        if _is_mergeable(empty):
            lists = folder / lists_file(number, parts)
            _write_lists(path, lists, stage, vectors, number, first, last)
        else:
            index = faiss.clone_index(empty)
            for block in vectors.blocks(first, last, BLOCK):
                index.add(block)
            faiss.write_index(index, str(path))
    if type(empty).__name__ not in _WHOLE:
        write_flat(folder / VECTORS_FILE, FLAT[metric], vectors, 0, len(vectors))
    return type(empty).__name__, parameters


def write_flat(path: Path, kind: str, vectors: Vectors, first: int, last: int) -> None:
    """Write Faiss's exact index of the rows first to last, without holding them in memory: the file
    is the header of an empty index, with two lengths changed, and then the numbers."""
    import faiss

    empty = faiss.serialize_index(getattr(faiss, kind)(vectors.shape[1])).tobytes()
    header = bytearray(empty)
    header[8:16] = struct.pack("<q", last - first)  # after the name and the dimension: ntotal
    header[-8:] = struct.pack("<Q", (last - first) * vectors.shape[1])  # the numbers that follow
    with open(path, "wb") as file:
        file.write(header)
        for block in vectors.blocks(first, last, BLOCK):
            file.write(block.data)


def _trained(stage: Path, vectors: Vectors, metric: str, factory: str) -> tuple[Any, int]:
    """The trained index without any vectors, and how many vectors it was trained on."""
    import faiss

    index = make_index(factory, vectors.shape[1], metric, len(vectors))
    size = 0 if index.is_trained else training_size(index, len(vectors))
    path = stage / "trained.index"
    if path.is_file():
        return faiss.read_index(str(path)), size
    if size:
        chosen = np.random.default_rng(0).choice(len(vectors), size, replace=False)
        index.train(vectors.rows(np.sort(chosen)))
    _write_index(path, index)
    return index, size


def _write_index(path: Path, index: Any) -> None:
    """Write a Faiss file that gets its name only when it is complete."""
    import faiss

    with whole_file(path) as unfinished:
        faiss.write_index(index, str(unfinished))


def _is_mergeable(index: Any) -> bool:
    """Whether an index has inverted lists that can be merged on the disk."""
    import faiss

    inverted = inverted_file(index)
    if inverted is None:
        return False
    return isinstance(faiss.downcast_InvertedLists(inverted.invlists), faiss.ArrayInvertedLists)


def _write_lists(
    path: Path, lists: Path, stage: Path, vectors: Vectors, number: int, first: int, last: int
) -> None:
    """Write a part's inverted lists block by block, and merge them into the file `lists`."""
    import faiss
    from faiss.contrib.ondisk import merge_ondisk

    blocks = []
    for at in range(first, last, BLOCK):
        block = stage / f"{number:05d}-{at:010d}.block"
        if not block.is_file():
            index = faiss.read_index(str(stage / "trained.index"))
            end = min(at + BLOCK, last)
            rows = next(vectors.blocks(at, end, BLOCK))
            index.add_with_ids(rows, np.arange(at - first, end - first))
            _write_index(block, index)
        blocks.append(str(block))
    merged = faiss.read_index(str(stage / "trained.index"))
    with _silent():
        merge_ondisk(merged, blocks, str(lists))
    # Faiss writes the path of the lists into the index, but the index may be moved, and its bytes
    # must not depend on where it was made. So only the file's name is written.
    on_disk: Any = faiss.downcast_InvertedLists(inverted_file(merged).invlists)
    on_disk.filename = lists.name
    faiss.write_index(merged, str(path))


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the message about the merged file that Faiss prints on C's standard output."""
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
        libc.fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def clear_other_stages(working: Path, stage: Path) -> None:
    """Remove what builds of other kinds of index have left, and create the folder of this one."""
    for other in working.glob("stage-*"):
        if other != stage:
            shutil.rmtree(other)
    stage.mkdir(exist_ok=True)
