"""The datastore on disk: what is in it, what a kill leaves, what is refused."""

import json
import os
import shutil
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ragbook.corpus import Corpus
from ragbook.errors import InputError
from ragbook.index import arrays
from ragbook.index import datastore as module
from ragbook.index.datastore import Datastore, add_approximate, build_datastore, verify
from ragbook.index.manifest import serialize
from tests.fakes import animals
from tests.kills import kills_of

Base: Any = object  # it stands for a LanguageModel, and needs no torch module


class Letters(Base):
    """A language model whose tokens are letters and whose keys count those of the text so far."""

    name, sha256, dimension, window, start, end = "letters", "a" * 64, 26, 256, 27, 28

    def __init__(self, name: str = "letters") -> None:
        self.name, self.sha256 = name, name[0] * 64
        self.read = 0  # texts so far

    def texts(self, passages):
        letters = ([ord(c) - 97 for c in p.text.lower() if "a" <= c <= "z"] for p in passages)
        return [[self.start, *one, self.end] for one in letters]

    def keys(self, texts):
        self.read += len(texts)
        seen = (torch.nn.functional.one_hot(torch.tensor(ids), 29)[:, :26] for ids in texts)
        return [one.cumsum(0).float() for one in seen]


CORPUS = animals(23)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(arrays, "CHUNK_PASSAGES", 5)


@pytest.fixture
def built(tmp_path):
    return build_datastore(CORPUS, tmp_path / "store", Letters(), progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_token_has_its_key_its_value_and_its_passage(built):
    lm = Letters()
    at = 0
    for number, (passage, ids) in enumerate(zip(CORPUS, lm.texts(CORPUS), strict=True)):
        (keys,) = lm.keys([ids[:-1]])
        rows = slice(at, at + len(ids) - 1)
        assert built.values[rows].tolist() == ids[1:]
        np.testing.assert_array_equal(built.keys[rows], keys.numpy())
        assert set(built.passage_of(np.arange(rows.start, rows.stop))) == {number}
        assert built.passages[number] == passage
        at += len(ids) - 1
    assert len(built) == at == built.manifest["pairs"]
    assert (built.keys.dtype, built.values.dtype) == (np.float16, np.int32)


def test_a_context_of_the_corpus_finds_itself(built):
    queries = np.asarray(built.keys[100:103], dtype=np.float32)
    distances, rows = built.search(queries, 4)
    assert distances[:, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(built.keys[rows[:, 0]], built.keys[100:103])


def test_the_manifest_names_what_was_built_and_verify_finds_damage(built, tmp_path):
    manifest = built.manifest
    assert manifest["corpus"] == {"name": "animals", "passages": 23, "sha256": CORPUS.sha256}
    assert manifest["language_model"]["name"] == "letters"
    assert verify(built.path) == []
    with (built.path / "keys.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x77")
    assert "keys.npy" in verify(built.path)[0]
    written = (built.path / "manifest.json").read_bytes()
    raw = json.loads(written)
    (built.path / "manifest.json").write_text(json.dumps(raw | {"pairs": 7}))
    assert any("manifest" in problem for problem in verify(built.path))
    (built.path / "manifest.json").write_bytes(written)
    (built.path / "values.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"values\.npy has 0 bytes"):
        Datastore.open(built.path)
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="not a complete datastore"):
            Datastore.open(folder)


def test_another_version_is_refused(built):
    (built.path / "manifest.json").write_bytes(serialize(built.manifest | {"format_version": 1}))
    with pytest.raises(InputError, match="version 1"):
        Datastore.open(built.path)


def test_the_same_build_stands_and_another_is_refused(built):
    lm = Letters()
    again = build_datastore(CORPUS, built.path, lm, progress=False)
    assert lm.read == 0
    assert again.manifest == built.manifest
    for corpus, other in ((animals(4), Letters()), (CORPUS, Letters("words"))):
        with pytest.raises(InputError, match="another datastore"):
            build_datastore(corpus, built.path, other, progress=False)
    with pytest.raises(InputError, match="'words'"):
        built.check_model(Letters("words"))
    built.check_model(Letters())


class Killed(BaseException):
    """Nothing in the package catches it."""


@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_build_goes_on_after_its_last_whole_chunk(built, tmp_path, chunks):
    """It ended while the next one was being written, and ends with the same bytes."""
    out = tmp_path / "killed"

    class Dying(Letters):
        def keys(self, texts):
            if self.read == 5 * chunks:
                with (tmp_path / ".killed.building/store/keys.npy").open("ab") as file:
                    file.write(b"half a chunk")
                raise Killed
            return super().keys(texts)

    with pytest.raises(Killed):
        build_datastore(CORPUS, out, Dying(), progress=False)
    assert not out.exists()
    lm = Letters()
    build_datastore(CORPUS, out, lm, progress=False)
    assert lm.read == len(CORPUS) - 5 * chunks
    assert contents(out) == contents(built.path)


def test_a_build_that_ended_at_the_renaming_is_only_renamed(built, tmp_path, monkeypatch):
    def killed(*_):
        raise Killed

    out = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(module, "replace_folder", killed)
        with pytest.raises(Killed):
            build_datastore(CORPUS, out, Letters(), progress=False)
    lm = Letters()
    build_datastore(CORPUS, out, lm, progress=False)
    assert lm.read == 0
    assert contents(out) == contents(built.path)


DAMAGED = {
    "progress.json": [b"", b"[]", b'{"passages": -5}', b'{"passages": 1e9}', b'{"passages": 15}',
                      b'{"passages": 7}', b'{"passages": "5"}', b"[" * 100_000, b"\xff"],
    "offsets.npy": [b"", b"\x93NUMPY"],
    "values.npy": [b"", b"\x93NUMPY\x01\x00\xff\xff"],
    "keys.npy": [b"", b"short"],
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_what_a_killed_build_left_damaged_is_made_again(built, tmp_path, monkeypatch, name):
    class Dies(Letters):
        def keys(self, texts):
            if self.read >= 10:
                raise Killed
            return super().keys(texts)

    for number, content in enumerate(DAMAGED[name]):
        out = tmp_path / f"{number}"
        with pytest.raises(Killed):
            build_datastore(CORPUS, out, Dies(), progress=False)
        (tmp_path / f".{number}.building" / "store" / name).write_bytes(content)
        build_datastore(CORPUS, out, Letters(), progress=False)
        assert contents(out) == contents(built.path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_killed_at_every_file_operation():
    kills, said = kills_of("index/killed_datastores.py", timeout=300)
    assert not said
    assert kills > 30, "the build was killed at too few points to mean anything"


def test_remains_of_another_build_are_not_used(built, tmp_path):
    working = tmp_path / ".other.building"
    shutil.copytree(built.path, working / "store")
    (working / "state.json").write_text('{"corpus": "another"}')
    corpus = Corpus("few", list(CORPUS)[:3])
    store = build_datastore(corpus, tmp_path / "other", Letters(), progress=False)
    assert store.manifest["corpus"]["passages"] == 3
    assert verify(store.path) == []
    assert not working.exists()


def test_a_full_disk_is_noticed_before_the_model_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    lm = Letters()
    with pytest.raises(InputError, match="room"):
        build_datastore(CORPUS, tmp_path / "store", lm, progress=True)
    assert lm.read == 0
    pairs = sum(len(ids) - 1 for ids in lm.texts(CORPUS))
    assert f"{pairs:,} pairs" in capsys.readouterr().err


def test_keys_that_float16_cannot_hold_are_refused(tmp_path, monkeypatch):
    lm = Letters()
    monkeypatch.setattr(lm, "keys", lambda texts: [torch.full((len(t), 26), 1e6) for t in texts])
    with pytest.raises(InputError, match="float16"), np.errstate(over="ignore"):
        build_datastore(CORPUS, tmp_path / "store", lm, progress=False)
    with pytest.raises(InputError, match="no passages"):
        build_datastore(Corpus("none", []), tmp_path / "store", lm, progress=False)


def test_the_approximate_index_lies_beside_the_keys(built, tmp_path, monkeypatch):
    queries = np.asarray(built.keys[:40:7], dtype=np.float32)
    with pytest.raises(InputError, match="--ivfpq"):
        built.search_approximately(queries, 3)
    with pytest.raises(InputError, match="too few"):
        add_approximate(built)
    many = Corpus("many", animals(230))
    store = build_datastore(many, tmp_path / "many", Letters(), progress=False)
    store = add_approximate(store)
    assert store.manifest["pairs"] == len(store)
    assert verify(store.path) == []
    distances, rows = store.search_approximately(queries, 8, recompute=True)
    exact, _ = store.search(queries, 8)
    assert (distances >= exact - 1e-3).all()
    assert np.isclose(distances, exact, atol=1e-3).mean() > 0.5
    assert rows.shape == (len(queries), 8)
    before = contents(store.path)
    assert contents(add_approximate(store).path) == before
