"""Checks the structure of Faiss files, so that no damaged one can end the process.

Faiss trusts what it maps: it follows numbers in a file without looking where they lead, and one
that leads out of the file ends the process. Opening compares here what is small (headers, the
places of inverted lists). What is as large as the index, a graph's links, is looked through before
the first search; and the rows that a search returns are compared with the number of passages.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.errors import InputError
from ragbook.index.factories import inverted_file

_FLAT = struct.Struct("<4siq16xBiQ")  # name, d, ntotal, is_trained, metric, number of floats
_NAMES = {"IndexFlatIP": (b"IxFI", 0), "IndexFlatL2": (b"IxF2", 1)}  # with Faiss's metric
_BLOCK = 1 << 22  # links that are looked through at a time


class DamagedError(ValueError):
    """A Faiss file contradicts itself or its manifest; the message says how."""


def flat_header(kind: str, rows: int, dimension: int) -> bytes:
    """The bytes before the vectors in the file of Faiss's exact index `kind`."""
    name, metric = _NAMES[kind]
    fields = _FLAT.pack(name, dimension, rows, 1, metric, rows * dimension)
    return fields[:16] + 2 * struct.pack("<q", 1 << 20) + fields[32:]  # two numbers without use


def check_flat(path: Path, kind: str, rows: int, dimension: int) -> None:
    """Raise DamagedError if a file is not that of Faiss's exact index of so many vectors."""
    with path.open("rb") as file:
        header = file.read(_FLAT.size)
    whole = path.stat().st_size == _FLAT.size + 4 * rows * dimension
    wanted = _FLAT.unpack(flat_header(kind, rows, dimension))
    if not whole or _FLAT.unpack(header) != wanted:
        raise DamagedError(f"it is not an {kind} of {rows:,} vectors of {dimension} numbers")


def check_lists(index: Any, lists: Path) -> None:
    """Raise DamagedError if inverted lists are not where the index says, in the file `lists`."""
    import faiss

    inverted = inverted_file(index)
    on_disk: Any = faiss.downcast_InvertedLists(inverted.invlists)
    size = lists.stat().st_size
    if not isinstance(on_disk, faiss.OnDiskInvertedLists) or on_disk.totsize != size:
        raise DamagedError(f"{lists.name} has another size than the index says")
    entries: Any = on_disk.lists
    if on_disk.nlist != inverted.nlist or on_disk.code_size != inverted.code_size:
        raise DamagedError("its inverted lists are of another kind than the index says")
    if entries.size() != on_disk.nlist or inverted.quantizer.ntotal != inverted.nlist:
        raise DamagedError("it has another number of inverted lists than it says")
    # A C++ vector of (size, capacity, offset), which Python would read one by one.
    numbers: Any = (ctypes.c_uint64 * (3 * on_disk.nlist)).from_address(int(entries.data().this))
    table = np.frombuffer(numbers, np.uint64).reshape(-1, 3)
    used, room, offset = table[table[:, 1] > 0].T
    most = np.uint64(size)
    # Each number by itself first, so that none of the sums can pass 2^64.
    inside = (room <= most // np.uint64(on_disk.code_size + 8)) & (offset <= most) & (used <= room)
    if not inside.all() or (table[table[:, 1] == 0, 0] > 0).any():
        raise DamagedError("an inverted list is longer than its place")
    if (offset + room * np.uint64(on_disk.code_size + 8) > most).any():
        raise DamagedError(f"an inverted list does not lie in {lists.name}")
    if int(used.sum()) != index.ntotal:
        raise DamagedError("its inverted lists hold another number of vectors than it says")


def check_codes(index: Any) -> None:
    """Raise DamagedError if an index that Faiss has read, or one inside it, has another number of
    codes or another dimension than it says. What is as large as the index is not read."""
    import faiss

    if isinstance(index, faiss.IndexPreTransform):
        chained: Any = index.chain
        chain = [chained.at(number) for number in range(chained.size())]
        dimensions = [index.d, *(each.d_out for each in chain)]
        if [each.d_in for each in chain] != dimensions[:-1]:
            raise DamagedError("its transformations do not fit each other")
        inner: Any = faiss.downcast_index(index.index)
        if inner.ntotal != index.ntotal or inner.d != dimensions[-1]:
            raise DamagedError("the index behind its transformation is of another size")
        check_codes(inner)
    elif isinstance(index, faiss.IndexHNSW):
        _check_graph(index)
    elif isinstance(index, faiss.IndexIVF):
        quantizer: Any = faiss.downcast_index(index.quantizer)
        if quantizer.ntotal != index.nlist or quantizer.d != index.d:
            raise DamagedError("its coarse quantizer is of another size")
        check_codes(quantizer)
        check_links(quantizer)
        if index.invlists is not None and index.invlists.nlist != index.nlist:
            raise DamagedError("it has another number of inverted lists than it says")
    elif hasattr(index, "codes") and index.codes.size() < index.ntotal * index.code_size:
        raise DamagedError("it has fewer codes than it says")


def _check_graph(index: Any) -> None:
    """The parts of a graph whose number does not grow with the vectors, and the sizes of others."""
    import faiss

    graph: Any = index.hnsw
    storage: Any = faiss.downcast_index(index.storage)
    if storage.ntotal != index.ntotal or storage.d != index.d:
        raise DamagedError("the vectors of its graph are of another number")
    check_codes(storage)
    whole = (
        graph.levels.size() == index.ntotal
        and graph.offsets.size() == index.ntotal + 1
        and -1 <= graph.entry_point < index.ntotal
        and (index.ntotal == 0 or graph.entry_point >= 0)
        and -1 <= graph.max_level < graph.cum_nneighbor_per_level.size() - 1
        and graph.offsets.at(index.ntotal) == graph.neighbors.size()
    )
    if not whole:
        raise DamagedError("its graph is of another size")


def check_links(index: Any) -> None:
    """Raise DamagedError if a graph has a link to a vector that is not there, or a vector's links
    are not where they must be. This reads all links, once, and nothing of an index without."""
    import faiss

    if isinstance(index, faiss.IndexPreTransform):
        return check_links(faiss.downcast_index(index.index))
    if not isinstance(index, faiss.IndexHNSW) or index.ntotal == 0:
        return None
    graph: Any = index.hnsw
    count = index.ntotal
    levels, offsets = _array(graph.levels, np.int32), _array(graph.offsets, np.uint64)
    room = _array(graph.cum_nneighbor_per_level, np.int32)
    if (np.diff(room) < 0).any() or room[0] != 0:
        raise DamagedError("the levels of its graph have no room")
    if levels.min() < 1 or levels.max() > len(room) - 1:
        raise DamagedError("a level of its graph is not there")
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise DamagedError("the links of its graph are not in order")
    if (np.diff(offsets.astype(np.int64)) != room[levels]).any():
        raise DamagedError("a vector of its graph has another number of links")
    if graph.max_level > levels[graph.entry_point] - 1:
        raise DamagedError("its graph begins above its highest level")
    links = _array(graph.neighbors, np.int32)
    for at in range(0, len(links), _BLOCK):
        block = links[at : at + _BLOCK]
        if block.min() < -1 or block.max() >= count:
            raise DamagedError("its graph has a link to a vector that is not there")
    _check_levels(links, levels, offsets, room)
    return None


def _check_levels(
    links: np.ndarray, levels: np.ndarray, offsets: np.ndarray, room: np.ndarray
) -> None:
    """A link on a level above the lowest must lead to a vector that has this level."""
    for level in range(1, int(levels.max())):
        begin = offsets[:-1][levels > level].astype(np.int64)
        own = begin[:, None] + np.arange(room[level], room[level + 1])
        found = links[own]
        if (levels[found[found >= 0]] <= level).any():
            raise DamagedError("its graph has a link to a vector of a lower level")


def _array(vector: Any, dtype: type) -> np.ndarray:
    """A C++ vector's numbers, without a copy."""
    size = vector.size()
    if size == 0:
        return np.empty(0, dtype)
    raw = (ctypes.c_char * (size * np.dtype(dtype).itemsize)).from_address(int(vector.data()))
    return np.frombuffer(raw, dtype)


def check_rows(rows: np.ndarray, count: int) -> None:
    """Raise InputError if a search returned a row that no vector has."""
    if ((rows < -1) | (rows >= count)).any():
        raise InputError(
            "The index is damaged (it names a vector that is not there); build it again."
        )
