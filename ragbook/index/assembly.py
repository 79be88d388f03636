"""Makes Faiss files from encoded vectors: trained on a sample, filled block by block, merged on the
disk.

Only a block of vectors and the training sample are in memory, except for a graph (HNSW), which is
built in memory as a whole. Inverted lists are filled a block at a time into files,
`stage/NNNNN-NNNNN.block`, and these are merged into one file on the disk; a killed build goes on
after its last complete block.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.errors import InputError
from ragbook.files import whole_file
from ragbook.index.encoding import Vectors
from ragbook.index.factories import (
    EXACT,
    faiss_errors,
    inverted_file,
    make_index,
    silent,
    training_size,
)
from ragbook.index.parts import FLAT, VECTORS_FILE, faiss_file, lists_file, part_bounds
from ragbook.index.structure import flat_header

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
            with _writing(path):
                faiss.write_index(index, str(path))
    if type(empty).__name__ not in _WHOLE:
        write_flat(folder / VECTORS_FILE, FLAT[metric], vectors, 0, len(vectors))
    return type(empty).__name__, parameters


def write_flat(path: Path, kind: str, vectors: Vectors, first: int, last: int) -> None:
    """Write Faiss's exact index of the rows first to last, without holding them in memory."""
    with open(path, "wb") as file:
        file.write(flat_header(kind, last - first, vectors.shape[1]))
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
        with faiss_errors(
            f"Faiss cannot train {factory!r} on {size:,} of these passages",
            "choose another kind of index; it is made from the vectors that are encoded already",
        ):
            index.train(vectors.rows(np.sort(chosen)))
    _write_index(path, index)
    return index, size


def _write_index(path: Path, index: Any) -> None:
    """Write a Faiss file that gets its name only when it is complete."""
    import faiss

    with whole_file(path) as unfinished, _writing(path):
        faiss.write_index(index, str(unfinished))


def _writing(path: Path) -> AbstractContextManager[None]:
    """Faiss does not say that a disk is full, but that a file could not be written."""
    return faiss_errors(
        f"{path.name} could not be written, perhaps because the disk is full",
        "make room, and give the same command again: it goes on from what is done",
    )


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
    room = sum(Path(block).stat().st_size for block in blocks)
    if room > (free := shutil.disk_usage(lists.parent).free):
        # Faiss maps the file, and where a mapped file does not fit, the system ends the process.
        raise InputError(
            f"{lists.name} takes up to {room:,} bytes, and the disk has {free:,} left; make room, "
            "and give the same command again: it goes on from what is done."
        )
    with silent(1), _writing(lists):  # it says on standard output what it merged
        merge_ondisk(merged, blocks, str(lists))
    # Faiss writes the path of the lists into the index, but the index may be moved, and its bytes
    # must not depend on where it was made. So only the file's name is written.
    on_disk: Any = faiss.downcast_InvertedLists(inverted_file(merged).invlists)
    on_disk.filename = lists.name
    with _writing(path):
        faiss.write_index(merged, str(path))


def clear_other_stages(working: Path, stage: Path) -> None:
    """Remove what builds of other kinds of index have left, and create the folder of this one."""
    for other in working.glob("stage-*"):
        if other != stage:
            shutil.rmtree(other)
    stage.mkdir(exist_ok=True)
