"""Approximate indexes and those of several parts: what they find, and that a kill breaks none."""

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.index import PassageIndex, assembly, build_index, verify
from ragbook.index.assembly import write_flat
from ragbook.index.encoding import Vectors
from ragbook.index.factories import choose_factory, make_index, parse_bytes
from ragbook.index.parts import best, part_bounds
from ragbook.index.recall import search_exactly, share_found
from tests.fakes import HashEncoder, animals

N, D = 10_000, 32


class Clustered(HashEncoder):
    """Vectors in clusters, by the passage's number; a question made of its words is near it."""

    def __init__(self, metric: str = "inner_product") -> None:
        super().__init__(f"fake/clustered-{metric}", D)
        self.metric = metric
        self.similarity = "l2" if metric == "l2" else "dot"
        rng = np.random.default_rng(1)
        centres = rng.normal(size=(60, D))
        vectors = centres[rng.integers(0, 60, N)] + 0.5 * rng.normal(size=(N, D))
        self.made = vectors.astype(np.float32)
        self.noise = (0.3 * rng.normal(size=(N, D))).astype(np.float32)

    def encode_passages(self, passages, batch_size=64):
        self.encoded += len(passages)
        return self.made[[int(p.id) for p in passages]]

    def encode_queries(self, queries, batch_size=64):
        rows = [int(query.split()[0][1:]) for query in queries]
        return self.made[rows] + self.noise[rows]


CORPUS = Corpus("many", (Passage(str(i), f"T{i}", f"w{i}") for i in range(N)))
ENCODERS = {metric: Clustered(metric) for metric in ("inner_product", "l2")}
QUERIES = ENCODERS["l2"].encode_queries([f"w{i}" for i in range(0, N, 100)])
TRUTH = {
    metric: np.argsort(
        -(QUERIES.astype(np.float64) @ encoder.made.T.astype(np.float64))
        if metric == "inner_product"
        else ((QUERIES[:, None] - encoder.made[None]).astype(np.float64) ** 2).sum(-1),
        axis=1,
        kind="stable",
    )[:, :10]
    for metric, encoder in ENCODERS.items()
}


def built(
    folder: Path, factory: str, metric: str = "inner_product", **options: Any
) -> PassageIndex:
    options = {"shard_passages": 1_500, **options}
    return build_index(CORPUS, folder, ENCODERS[metric], progress=False, factory=factory, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
@pytest.mark.parametrize(
    ("factory", "parts", "least"),
    [
        ("HNSW16", 1, 0.9),
        ("SQ8", 2, 0.99),
        ("IVF64,Flat", 1, 0.9),
        ("IVF64,SQ8", 3, 0.9),
        ("OPQ4,IVF64,PQ4", 2, 0.85),
        ("IVF16,PQ8x4fs", 1, 0.8),
    ],
)
def test_approximate_indexes_find_and_score(tmp_path, monkeypatch, metric, factory, parts, least):
    monkeypatch.setattr(assembly, "BLOCK", 2_000)
    index = built(tmp_path / "index", factory, metric, parts=parts)
    parameters = index.manifest["index"]["parameters"]
    assert parameters["factory"] == factory
    recall = parameters["recall"]["at"][str(parameters.get("effort", "all"))]
    scores, positions = index.search(QUERIES, 10)
    assert share_found(positions, TRUTH[metric]) >= least
    assert recall >= least
    assert (np.diff(scores) <= 0).all()
    vectors = ENCODERS[metric].made[positions]
    exact = (
        np.einsum("bkd,bd->bk", vectors, QUERIES)
        if metric == "inner_product"
        else -((vectors - QUERIES[:, None]) ** 2).sum(-1)
    )
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-3)
    rows = np.array([N - 1, 0, 5_000, 3, 3])
    np.testing.assert_array_equal(index.vectors(rows), ENCODERS[metric].made[rows])
    assert verify(tmp_path / "index") == []
    assert len(list((tmp_path / "index").glob("*.lists"))) == parts * (
        "IVF" in factory and "fs" not in factory
    )


def test_same_inputs_same_bytes_wherever(tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK", 3_000)
    for name in ("a", "b/deeper"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        built(tmp_path / name, "OPQ8,IVF32,PQ8x4", parts=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b/deeper")
    shutil.move(tmp_path / "a", tmp_path / "moved")
    moved = PassageIndex.open(tmp_path / "moved")
    other = PassageIndex.open(tmp_path / "b/deeper")
    assert (moved.search(QUERIES, 10)[1] == other.search(QUERIES, 10)[1]).all()


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_parts_are_equal_to_one_index(tmp_path, metric):
    whole = built(tmp_path / "one", "Flat", metric)
    parts = built(tmp_path / "seven", "Flat", metric, parts=7)
    for k in (1, 10, N):
        queries = QUERIES[: 5 if k == N else None]
        expected, found = whole.search(queries, k), parts.search(queries, k)
        np.testing.assert_array_equal(expected[1], found[1])
        np.testing.assert_allclose(expected[0], found[0], rtol=1e-5, atol=1e-4)
    rows = np.array([N - 1, 0, N // 7])
    np.testing.assert_array_equal(parts.vectors(rows), whole.vectors(rows))
    assert verify(tmp_path / "seven") == []


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_putting_parts_together_is_sorting(data):
    """Greatest first, the first in the corpus of equal ones, and none where there is none."""
    k = data.draw(st.integers(1, 8))
    rows = data.draw(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=5), min_size=1))
    found, first, everything = [], 0, []
    for scores in rows:
        order = sorted(range(len(scores)), key=lambda i, scores=scores: (-scores[i], i))
        positions = [first + i for i in order]
        everything += [(-scores[i], first + i) for i in order]
        found.append(
            (
                np.array([[*(scores[i] for i in order), -9]], np.float32),
                np.array([[*positions, -1]], np.int64),
            )
        )
        first += len(scores)
    scores, positions = best(found, k)
    expected = sorted(everything)[:k]
    shown = positions[0][positions[0] >= 0]
    assert shown.tolist() == [position for _, position in expected]
    assert scores[0][: len(expected)].tolist() == [-score for score, _ in expected]


@pytest.mark.parametrize("values", [3, 10**6])
def test_the_best_of_many_questions_with_and_without_ties(values):
    rng = np.random.default_rng(values)
    scores = rng.integers(0, values, (40, 30)).astype(np.float32)
    positions = np.stack([rng.permutation(30) for _ in scores])
    for k in (1, 7, 30):
        kept, at = best([(scores, positions)], k)
        for row in range(len(scores)):
            wanted = sorted(zip(-scores[row], positions[row], strict=True))[:k]
            assert list(zip(-kept[row], at[row], strict=True)) == wanted


@pytest.mark.parametrize("kind", ["IndexFlatIP", "IndexFlatL2"])
def test_the_exact_index_is_written_as_faiss_writes_it(tmp_path, kind):
    made = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    np.save(tmp_path / "0.npy", made[:30])
    np.save(tmp_path / "1.npy", made[30:])
    vectors = Vectors([tmp_path / "0.npy", tmp_path / "1.npy"], 30, made.shape)
    write_flat(tmp_path / "ours", kind, vectors, 7, 45)
    index = getattr(faiss, kind)(6)
    index.add(made[7:45])
    faiss.write_index(index, str(tmp_path / "theirs"))
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    scores, rows = search_exactly(vectors, made[:3], 4, "l2")
    assert rows[:, 0].tolist() == [0, 1, 2]
    np.testing.assert_allclose(scores[:, 0], 0, atol=1e-5)


class _Stopped(Exception):
    pass


def test_killed_in_the_assembly_and_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "BLOCK", 3_000)
    built(tmp_path / "whole", "IVF16,SQ8", parts=2)
    write, trained = assembly._write_index, []

    for stop in (0, 1, 3):
        count = 0

        def stopping(path, index, stop=stop):
            nonlocal count
            if count == stop:
                raise _Stopped
            count += 1
            write(path, index)

        monkeypatch.setattr(assembly, "_write_index", stopping)
        encoder = ENCODERS["inner_product"]
        encoder.encoded = 0
        with pytest.raises(_Stopped):
            built(tmp_path / "index", "IVF16,SQ8", parts=2)
        assert encoder.encoded == (N if stop == 0 else 0), "a taken up build encodes nothing again"
    monkeypatch.setattr(
        assembly,
        "_write_index",
        lambda path, index: (trained.append(path.name), write(path, index)),
    )
    built(tmp_path / "index", "IVF16,SQ8", parts=2)
    assert len(trained) == 1, "of four blocks, three were there"
    assert contents(tmp_path / "index") == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "index"}


def test_another_kind_goes_on_from_the_same_vectors(tmp_path, monkeypatch):
    def stopping(*_):
        raise _Stopped

    with monkeypatch.context() as patch:
        patch.setattr(assembly, "_write_lists", stopping)
        with pytest.raises(_Stopped):
            built(tmp_path / "index", "IVF16,SQ8")
    ENCODERS["inner_product"].encoded = 0
    index = built(tmp_path / "index", "SQ8")
    assert ENCODERS["inner_product"].encoded == 0
    assert index.manifest["index"]["type"] == "IndexScalarQuantizer"
    with pytest.raises(InputError, match=r"another kind .SQ8 in parts: 1.*--overwrite"):
        built(tmp_path / "index", "Flat")
    assert len(built(tmp_path / "index", "Flat", overwrite=True)) == N
    assert {p.name for p in (tmp_path / "index").iterdir()} == {
        "manifest.json",
        "passages.arrow",
        "faiss.index",
    }


def test_damage_is_found(tmp_path):
    built(tmp_path / "index", "IVF16,SQ8")
    for name in ("faiss.lists", "vectors.index", "faiss.index"):
        path = tmp_path / "index" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(InputError, match="damaged"):
            PassageIndex.open(tmp_path / "index")
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        path.write_bytes(changed)
        assert verify(tmp_path / "index")
        path.write_bytes(whole)
    assert verify(tmp_path / "index") == []


def test_nothing_is_said_on_standard_output(tmp_path, capfd):
    built(tmp_path / "index", "IVF16,SQ8").search(QUERIES, 3)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("", "makes no index"),
        ("IVF", "makes no index"),
        ("PQ7", "makes no index"),
        ("IVF16,PQ4,RFlat", "ranked again"),
        ("IDMap,Flat", "IndexIDMap"),
        ("IVF4096,Flat", "159,744 passages"),
        ("PQ4x10", "39,936 passages"),
        ("IVF64(HNSW32),Flat; rm", "makes no index"),
        ("IVF0,Flat", "too small or too large"),
        ("HNSW0", "too small or too large"),
        ("HNSW1", "too small or too large"),
        ("HNSW99999999999", "too small or too large"),
        ("NSG32", "choose HNSW32"),
        ("PCA64,Flat", "of 32 dimensions"),
        ("OPQ48,Flat", "of 32 dimensions"),
    ],
)
def test_what_cannot_be_built_is_told_before_encoding(tmp_path, factory, said):
    ENCODERS["inner_product"].encoded = 0
    with pytest.raises(InputError, match=re.escape(said)):
        built(tmp_path / "index", factory)
    assert ENCODERS["inner_product"].encoded == 0
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_trained_on_so_few_is_told_before_encoding(tmp_path):
    encoder = HashEncoder()
    with pytest.raises(InputError, match=r"Faiss cannot train 'PCA64,Flat' on 45 passages"):
        build_index(animals(45), tmp_path / "x", encoder, progress=False, factory="PCA64,Flat")
    assert encoder.encoded == 0
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_after_the_encoding_keeps_the_vectors(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("ragbook.index.build.try_factory", lambda *_: None)
        with pytest.raises(InputError, match=r"cannot train 'PCA64,Flat'.*encoded already"):
            build_index(
                animals(45), tmp_path / "x", HashEncoder(), progress=False, factory="PCA64,Flat"
            )
    encoder = HashEncoder()
    build_index(animals(45), tmp_path / "x", encoder, progress=False)
    assert encoder.encoded == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("factory", ["HNSW8", "IVF1,SQ8"])
def test_a_file_that_cannot_be_written_is_told(tmp_path, monkeypatch, factory):
    def failing(*_):
        raise RuntimeError("Error in void write(): Error: 'f' failed: write error in x: No space")

    with monkeypatch.context() as patch:
        patch.setattr(faiss, "write_index", failing)
        with pytest.raises(InputError, match=r"could not be written.*make room.*goes on"):
            build_index(animals(45), tmp_path / "x", HashEncoder(), progress=False, factory=factory)
    build_index(animals(45), tmp_path / "x", HashEncoder(), progress=False, factory=factory)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_other_bad_options(tmp_path):
    for name, value in (("parts", 0), ("parts", N + 1), ("engine", "steam"), ("device", "x")):
        with pytest.raises(InputError):
            built(tmp_path / "index", **{"factory": "Flat", name: value})
    with pytest.raises(InputError, match="train on"):
        build_index(animals(), tmp_path / "x", HashEncoder(), progress=False, factory="PQ8")


# --- the choice by a budget -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GB", 8 * 10**9), ("8 GiB", 8 << 30), ("1.5m", 1_500_000), ("100", 100), ("2kb", 2_000)],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "8XB", "8 GB please", "0", "1iB"])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="not a size"):
        parse_bytes(text)


def test_all_of_wikipedia():
    """DPR's 21,015,324 passages, 768 and 384 numbers."""
    passages = 21_015_324
    assert choose_factory(passages, 768, 100 * 10**9).factory == "HNSW32"
    choice = choose_factory(passages, 384, 8 * 10**9)
    assert choice.factory == "OPQ192,IVF16384,PQ192np"
    assert choice.memory < 8 * 10**9
    assert len(choice.reasons) == 3
    assert "8.3 GB is more than 8.0 GB" in choice.reasons[1]
    assert choose_factory(passages, 384, parse_bytes("8GiB")).factory == "IVF16384,SQ8"
    with pytest.raises(InputError, match="do not fit into"):
        choose_factory(passages, 384, 10**8)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 30_000_000), st.sampled_from([64, 128, 384, 768]), st.integers(4, 11))
def test_what_is_chosen_fits_and_can_be_made(passages, dimension, power):
    with contextlib.suppress(InputError):
        choice = choose_factory(passages, dimension, 10**power)
        assert choice.memory <= 10**power
        assert choice.factory in choice.reasons[-1]
        more = choose_factory(passages, dimension, 10 * 10**power)
        assert len(more.reasons) <= len(choice.reasons)
        try:
            make_index(choice.factory, dimension, "inner_product", passages)
        except InputError as error:
            raise AssertionError("what was chosen cannot be made") from error


@pytest.mark.parametrize("factory", ["Flat", "HNSW32", "IVF256,SQ8", "OPQ4,IVF256,PQ4np"])
def test_the_bytes_told_are_those_on_the_disk(tmp_path, factory):
    passages = 10_000
    budgets = (10**9, 440_000, 200_000)
    told = {
        choice.factory: choice.memory
        for choice in (choose_factory(passages, D, budget) for budget in budgets)
    }
    told["HNSW32"] = 10_000 * (4 * D + 276)
    assert factory in told
    built(tmp_path / "index", factory)
    files = json.loads((tmp_path / "index" / "manifest.json").read_text())["files"]
    size = sum(file["bytes"] for name, file in files.items() if name.startswith("faiss"))
    assert size == pytest.approx(told[factory], rel=0.03)


def test_bounds():
    assert part_bounds(10, 3) == [(0, 3), (3, 6), (6, 10)]


@pytest.mark.parametrize("factory", ["HNSW32", "HNSW16,SQ8"])
def test_graphs_are_linked_with_160_candidates(tmp_path, factory):
    """With the 40 of Faiss, graphs of a million passages miss one neighbour in six."""
    build_index(animals(20), tmp_path / "index", HashEncoder(), progress=False, factory=factory)
    index: Any = faiss.read_index(str(tmp_path / "index" / "faiss.index"))
    assert index.hnsw.efConstruction == 160
