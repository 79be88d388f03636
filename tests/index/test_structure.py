"""Each check of a Faiss file's structure, on files that break it."""

import shutil
import struct
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index
from ragbook.index.structure import (
    DamagedError,
    check_codes,
    check_flat,
    check_links,
    check_lists,
    flat_header,
)
from tests.fakes import HashEncoder, animals
from tests.flips import without_checksums

VECTORS = np.random.default_rng(0).standard_normal((200, 8)).astype(np.float32)


def graph() -> Any:
    index = faiss.IndexHNSWFlat(8, 4)
    index.add(VECTORS)  # pyright: ignore[reportCallIssue]
    return index


def test_a_graph_as_it_was_made_is_right():
    check_codes(graph())
    check_links(graph())


def spoil(index: Any, vector: str, at: int, value: int) -> None:
    """Write a number into a C++ vector of a graph."""
    numbers = getattr(index.hnsw, vector)
    array = faiss.rev_swig_ptr(numbers.data(), numbers.size())
    array[at] = np.array(value).astype(array.dtype)


@pytest.mark.parametrize("value", [200, 2**31 - 1, -2, -(2**31)])
@pytest.mark.parametrize("at", [0, -1, 777])
def test_a_link_to_nowhere_is_found(value, at):
    index = graph()
    spoil(index, "neighbors", at, value)
    with pytest.raises(DamagedError, match="link to a vector that is not there"):
        check_links(index)


def test_a_link_to_a_lower_level_is_found():
    """A search would read links of a level that the vector does not have."""
    index = graph()
    levels = faiss.vector_to_array(index.hnsw.levels)
    offsets = faiss.vector_to_array(index.hnsw.offsets)
    high, low = int(np.argmax(levels)), int(np.argmin(levels))
    assert levels[high] > 1 == levels[low]
    spoil(index, "neighbors", int(offsets[high]) + 2 * 4, low)  # the first link of level 1
    with pytest.raises(DamagedError, match="lower level"):
        check_links(index)


@pytest.mark.parametrize(
    ("vector", "at", "value"),
    [("levels", 5, 0), ("levels", 5, 99), ("offsets", 7, 10**12), ("offsets", 0, 1)],
)
def test_levels_and_places_of_links_are_compared(vector, at, value):
    index = graph()
    spoil(index, vector, at, value)
    with pytest.raises(DamagedError):
        check_links(index)


def test_a_graph_of_another_size_is_found():
    index = graph()
    index.hnsw.entry_point = 200
    with pytest.raises(DamagedError, match="another size"):
        check_codes(index)
    index = graph()
    index.ntotal = 201
    with pytest.raises(DamagedError):
        check_codes(index)


@pytest.mark.parametrize("kind", ["IndexFlatIP", "IndexFlatL2"])
def test_headers_of_exact_indexes(tmp_path, kind):
    path, index = tmp_path / "x", getattr(faiss, kind)(8)
    index.add(VECTORS)
    faiss.write_index(index, str(path))
    whole = path.read_bytes()
    assert whole.startswith(flat_header(kind, 200, 8))
    check_flat(path, kind, 200, 8)
    for at in [*range(16), *range(32, 45)]:
        changed = bytearray(whole)
        changed[at] ^= 2
        path.write_bytes(changed)
        with pytest.raises(DamagedError):
            check_flat(path, kind, 200, 8)
    path.write_bytes(whole[:-4])
    with pytest.raises(DamagedError):
        check_flat(path, kind, 200, 8)


@pytest.fixture
def lists(tmp_path) -> Path:
    """An index of inverted lists without checksums, as an older version wrote it."""
    out = tmp_path / "lists"
    build_index(animals(45), out, HashEncoder(), progress=False, factory="IVF1,SQ8")
    without_checksums(out)
    return out


def test_lists_must_lie_in_their_file(lists):
    flags = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_IVF_DATA
    index: Any = faiss.read_index(str(lists / "faiss.index"), flags)
    check_lists(index, lists / "faiss.lists")
    on_disk: Any = faiss.downcast_InvertedLists(index.invlists)
    one = on_disk.lists.data()  # the first
    for name, value in (("size", 46), ("size", 44), ("capacity", 2**40), ("offset", 8)):
        kept = getattr(one, name)
        setattr(one, name, value)
        with pytest.raises(DamagedError):
            check_lists(index, lists / "faiss.lists")
        setattr(one, name, kept)
    check_lists(index, lists / "faiss.lists")
    on_disk.totsize += 1
    with pytest.raises(DamagedError):
        check_lists(index, lists / "faiss.lists")


def test_an_id_in_a_list_that_no_vector_has(lists):
    raw = bytearray((lists / "faiss.lists").read_bytes())
    at = raw.index(struct.pack("<3q", 0, 1, 2))
    raw[at : at + 8] = struct.pack("<q", 10**9)
    (lists / "faiss.lists").write_bytes(raw)
    index = PassageIndex.open(lists)
    with pytest.raises(InputError, match="names a vector that is not there"):
        index.search(np.eye(64, dtype=np.float32), 45)


def test_offsets_of_texts_are_looked_through(tmp_path):
    build_index(animals(45), tmp_path / "whole", HashEncoder(), progress=False)
    without_checksums(tmp_path / "whole")
    index = PassageIndex.open(tmp_path / "whole")
    lengths = np.cumsum([0, *(len(p.text.encode()) for p in index.corpus)]).astype("<i4")
    for change in (lambda a: a + (10**8) * (np.arange(46) > 40), lambda a: -a, lambda a: a[::-1]):
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "whole", copy)
        path = copy / "passages.arrow"
        raw = path.read_bytes()
        assert raw.count(lengths.tobytes()) == 1
        path.write_bytes(raw.replace(lengths.tobytes(), change(lengths).astype("<i4").tobytes()))
        corpus = PassageIndex.open(copy).corpus
        for read in (lambda c: c[3], list, lambda c: c.position("newt-3")):
            with pytest.raises(InputError, match="begin and end"):
                read(corpus)
        shutil.rmtree(copy)
