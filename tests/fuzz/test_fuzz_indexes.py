"""Whatever a manifest, a header or an index file says: one sentence of ours, or the right result.

With RAGBOOK_FUZZ=N each test has N times as many examples.
"""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index, checksums, verify
from ragbook.index.datastore import Datastore, build_datastore
from ragbook.index.datastore import verify as verify_datastore
from ragbook.index.manifest import serialize
from tests import flips
from tests.fakes import HashEncoder, animals
from tests.index.test_datastore import Letters

FUZZ = int(os.environ.get("RAGBOOK_FUZZ", "1"))


def examples(count: int) -> settings:
    return settings(
        max_examples=count * FUZZ,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """An exact index, an approximate one in two parts, and a datastore; each test leaves them as
    they were."""
    root = tmp_path_factory.mktemp("fuzz")
    build_index(animals(45), root / "flat", HashEncoder(), progress=False)
    options: dict[str, Any] = {"factory": "IVF1,SQ8", "parts": 2}
    build_index(animals(45), root / "lists", HashEncoder(), progress=False, **options)
    build_datastore(animals(9), root / "store", Letters(), progress=False)
    return {name: root / name for name in ("flat", "lists", "store")}


def found(folder: Path) -> Any:
    """What opening and searching gives."""
    if folder.name == "store":
        store = Datastore.open(folder)
        queries = np.asarray(store.keys[::50], dtype=np.float32)
        distances, rows = store.search(queries, 3)
        return distances.tolist(), store.values[rows].tolist(), store.passage_of(rows).tolist()
    index = PassageIndex.open(folder)
    scores, positions = index.search(np.eye(64, dtype=np.float32)[:5], 4)
    return scores.tolist(), positions.tolist(), [index.corpus[int(i)] for i in positions.flat]


def said(work: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns and "", or None and the sentence with which it refuses."""
    try:
        return work(), ""
    except InputError as error:
        return None, str(error)


def holds(folder: Path, expected: Any) -> None:
    """The property: the right result, or one sentence; and `verify` answers too."""
    result, sentence = said(lambda: found(folder))
    assert result == expected or sentence
    assert not sentence or ("build" in sentence and len(sentence.splitlines()) == 1)
    check = verify_datastore if folder.name == "store" else verify
    assert len(said(lambda: check(folder))[1].splitlines()) <= 1


class Changed:
    """A file with other bytes inside the block, and its own after it."""

    def __init__(self, path: Path, raw: bytes) -> None:
        self.path, self.raw, self.whole = path, raw, path.read_bytes()

    def __enter__(self) -> None:
        self.path.write_bytes(self.raw)

    def __exit__(self, *_: Any) -> None:
        self.path.write_bytes(self.whole)


NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 63, 2**31 - 1, 2**31, 2**62, 2**63, 2**64, -(2**63)])
NAMES = st.sampled_from(
    ["", ".", "..", "../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "x" * 5_000, "faiss.index"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(allow_nan=False) | NAMES | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths to everything in a manifest."""
    if isinstance(value, dict):
        inside = [places(each, (*path, key)) for key, each in value.items()]
    elif isinstance(value, list):
        inside = [places(each, (*path, number)) for number, each in enumerate(value)]
    else:
        inside = []
    return [path, *(place for each in inside for place in each)]


def change(data: st.DataObject, manifest: Any) -> Any:
    """The manifest with an entry replaced, removed, renamed or added."""
    path = data.draw(st.sampled_from(places(manifest)[1:]))
    holder = manifest
    for step in path[:-1]:
        holder = holder[step]
    how = data.draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"]))
    if how == "remove":
        del holder[path[-1]]
    elif how == "replace" or not isinstance(holder, dict):
        holder[path[-1]] = data.draw(VALUES)
    elif how == "rename":
        holder[data.draw(NAMES)] = holder.pop(path[-1])
    else:
        holder[data.draw(NAMES | st.sampled_from(["parts", "effort"]))] = data.draw(VALUES)
    return manifest


@pytest.mark.parametrize("name", ["flat", "lists", "store"])
@examples(40)
@given(data=st.data())
def test_changed_manifests(folders, name, data):
    """Written as if this project had: the hash of the manifest itself holds."""
    folder = folders[name]
    expected = found(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 2))):
        manifest = change(data, manifest)
    with Changed(folder / "manifest.json", serialize(manifest)):
        holds(folder, expected)


HOSTILE = [
    b"",
    b"null",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"kind": "ragbook passage index", "format_version": 1, "corpus": ' + b"[" * 100_000,
    b'{"kind": "ragbook passage index", "x": "\\ud800"}',
    b'{"kind": "ragbook knn-lm datastore", "format_version": "\\ud800"}',
    b'{"kind": "ragbook passage index", "format_version": ' + b"9" * 5_000 + b"}",
    b'{"kind": "ragbook passage index", "format_version": 1e400}',
    b'{"kind": "ragbook passage index", "format_version": NaN}',
    b'{"kind": "ragbook passage index", "format_version": true}',
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
]


@pytest.mark.parametrize("name", ["flat", "store"])
@pytest.mark.parametrize("raw", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_manifests(folders, name, raw, tmp_path):
    folder = folders[name]
    with Changed(folder / "manifest.json", raw):
        with pytest.raises(InputError):
            found(folder)
        holds(folder, None)
        if name == "flat":  # what can be replaced is, whatever its manifest holds
            copy = shutil.copytree(folder, tmp_path / "copy")
            again = partial(build_index, animals(45), copy, HashEncoder(), progress=False)
            assert "--overwrite" in said(again)[1]
            again(overwrite=True)
            assert verify(copy) == []


@pytest.mark.parametrize("name", ["flat", "store"])
@examples(40)
@given(data=st.data())
def test_cut_and_mixed_manifests(folders, name, data):
    folder = folders[name]
    expected = found(folder)
    raw = bytearray((folder / "manifest.json").read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    kept = data.draw(st.sampled_from([0, len(raw), at + 1, at + 20]))
    raw[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    with Changed(folder / "manifest.json", bytes(raw[:at] if kept == 0 else raw[:kept] + raw[at:])):
        holds(folder, expected)


@pytest.mark.parametrize("file", ["keys.npy", "values.npy", "offsets.npy"])
@examples(40)
@given(data=st.data())
def test_changed_headers_of_arrays(folders, file, data):
    """As an older version wrote them, without checksums, so that numpy reads the headers."""
    folder = folders["store"]
    expected = found(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["checksums"]
    raw = bytearray((folder / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, 80))] = data.draw(st.integers(0, 255))
    with Changed(folder / "manifest.json", serialize(manifest)), Changed(folder / file, bytes(raw)):
        result, sentence = said(lambda: found(folder))
        assert result == expected or "build the datastore again" in sentence


@pytest.mark.parametrize("file", ["keys.npy", "values.npy", "offsets.npy"])
def test_a_header_that_says_another_length_of_itself_is_damaged(folders, file):
    """Its dictionary is whole, so that numpy reads on in what fills the header up."""
    folder = folders["store"]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["checksums"]
    raw = bytearray((folder / file).read_bytes())
    dictionary = raw.index(b"}") - 9  # after the ten bytes before it
    assert dictionary < raw[8]
    raw[8] -= 8 * ((raw[8] - dictionary) // 8)  # numbers stay whole
    with Changed(folder / "manifest.json", serialize(manifest)), Changed(folder / file, bytes(raw)):
        _, sentence = said(lambda: found(folder))
    assert "build the datastore again" in sentence


def test_a_file_of_another_index_does_not_open(folders, tmp_path):
    """Of the same size; only its checksum can tell."""
    build_index(animals(45), tmp_path / "other", HashEncoder("fake/other"), progress=False)
    copy = shutil.copytree(folders["flat"], tmp_path / "copy")
    vectors = np.fromfile(tmp_path / "other" / "faiss.index", np.uint8)
    vectors[-4:] = 0
    assert len(vectors) == (copy / "faiss.index").stat().st_size
    vectors.tofile(copy / "faiss.index")
    with pytest.raises(InputError, match="checksum"):
        PassageIndex.open(copy)


def test_opening_reads_a_bounded_number_of_bytes(tmp_path, monkeypatch):
    """Of a large file only the ends are compared; `verified` compares all of it."""
    monkeypatch.setattr(checksums, "WHOLE", 0)
    monkeypatch.setattr(checksums, "ENDS", 64)
    build_index(animals(45), tmp_path / "index", HashEncoder(), progress=False)
    entries = PassageIndex.open(tmp_path / "index").manifest["checksums"]
    for entry in entries.values():
        assert sum(last - first for first, last, _ in entry["ranges"]) == 128
    path = tmp_path / "index" / "faiss.index"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    PassageIndex.open(tmp_path / "index")
    with pytest.raises(InputError, match="damaged"):
        PassageIndex.open(tmp_path / "index", verified=True)


def test_flipped_bits(tmp_path):
    """`python -m tests.flips` makes two thousand."""
    counts, bad = flips.run(tmp_path, 50 * FUZZ, 1, kinds=("flat", "graph"))
    assert not bad
    assert counts["refused"] > 20
