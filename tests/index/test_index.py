import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index, verify
from ragbook.index.index import means_the_same
from ragbook.index.manifest import serialize, write_manifest
from ragbook.index.parts import Part
from tests.fakes import HashEncoder, animals


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """An index that no test changes."""
    out = tmp_path_factory.mktemp("built") / "index"
    build_index(animals(), out, HashEncoder(), progress=False)
    return out


@pytest.fixture
def copy(built, tmp_path) -> Path:
    """An index that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "index"))


# --- searching ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_search_is_brute_force(built, k, batch, seed):
    index, corpus, encoder = PassageIndex.open(built), animals(), HashEncoder()
    queries = np.random.default_rng(seed).standard_normal((batch, 64)).astype(np.float32)
    exact = queries.astype(np.float64) @ encoder.encode_passages(corpus).astype(np.float64).T
    scores, positions = index.search(queries, k)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    assert scores.shape == positions.shape == (batch, min(k, 23))
    assert scores.dtype == np.float32
    assert positions.dtype == np.int64
    best = np.take_along_axis(exact, expected, 1)
    np.testing.assert_allclose(scores, best, rtol=0, atol=1e-5)
    # Two passages may stand in either order where float32 cannot tell their scores apart.
    np.testing.assert_allclose(np.take_along_axis(exact, positions, 1), best, rtol=0, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in positions.tolist())


def test_every_passage_finds_itself(built):
    index, encoder = PassageIndex.open(built), HashEncoder()
    _, positions = index.search(encoder.encode_passages(list(index.corpus)), 1)
    assert positions[:, 0].tolist() == list(range(23))


def test_equal_scores_stand_in_the_corpus_order(tmp_path):
    class Constant(HashEncoder):
        def encode_passages(self, passages, batch_size=64):
            return np.ones((len(passages), 64), np.float32)

    index = build_index(animals(50), tmp_path / "index", Constant(), progress=False)
    _, positions = index.search(np.ones((3, 64), np.float32), 50)
    assert (positions == np.arange(50)).all()


def test_k_larger_than_the_corpus_gives_all_and_no_minus_one(built):
    scores, positions = PassageIndex.open(built).search(np.ones((2, 64), np.float32), 1_000)
    assert scores.shape == (2, 23)
    assert sorted(positions[0]) == list(range(23))


def test_no_queries(built):
    scores, positions = PassageIndex.open(built).search(np.empty((0, 64), np.float32), 5)
    assert scores.shape == positions.shape == (0, 5)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one(built, k):
    with pytest.raises(InputError, match=f"k must be 1 or more, not {k}"):
        PassageIndex.open(built).search(np.ones((1, 64), np.float32), k)


@pytest.mark.parametrize("queries", [np.ones((1, 63)), np.ones(64), np.full((1, 64), np.nan)])
def test_vectors_that_do_not_fit(built, queries):
    with pytest.raises(InputError, match=r"shape|finite"):
        PassageIndex.open(built).search(queries, 1)


def test_an_entry_of_before_says_the_same(built):
    """What an encoder's entry did not say once, and what it is called, make no difference."""
    entry = dict(PassageIndex.open(built).manifest["encoder"])
    for unsaid in ("id", "similarity"):
        del entry[unsaid]
    assert means_the_same(entry, HashEncoder())
    assert means_the_same(entry | {"precision": "bfloat16", "prompts": {}}, HashEncoder())
    for change in ({"prompts": {"passage": "p: "}}, {"max_tokens": 512}, {"similarity": "dot"}):
        assert not means_the_same(entry | change, HashEncoder())


def test_another_encoder_is_refused_and_both_are_named(built):
    index = PassageIndex.open(built)
    index.check_encoder(HashEncoder())
    with pytest.raises(InputError, match=r"fake/hash.*fake/other"):
        index.check_encoder(HashEncoder("fake/other"))


@pytest.mark.parametrize(
    "change", [{"pooling": "cls"}, {"dimension": 32}, {"metric": "l2"}, {"similarity": "dot"}]
)
def test_same_weights_used_otherwise_are_refused(built, change):
    encoder = HashEncoder()
    vars(encoder).update(change)
    with pytest.raises(InputError, match="was built with encoder fake/hash"):
        PassageIndex.open(built).check_encoder(encoder)


def test_same_weights_under_another_name_are_accepted(built):
    encoder = HashEncoder()
    encoder.id = "/elsewhere/the-same-weights"
    PassageIndex.open(built).check_encoder(encoder)


def test_an_index_from_before_similarities_had_a_choice_is_one_of_cosine(built, copy):
    def older(manifest):
        del manifest["encoder"]["similarity"]

    edit(copy, older)
    PassageIndex.open(copy).check_encoder(HashEncoder())


# --- the three similarities -----------------------------------------------------------------------


class VectorEncoder(HashEncoder):
    """Drawn vectors: passages of lengths 0.3 to 3, questions of lengths 1 to 2."""

    def __init__(self, similarity: str, seed: int = 0) -> None:
        super().__init__(f"fake/{similarity}-{seed}", dimension=8)
        self.similarity = similarity
        self.metric = "l2" if similarity == "l2" else "inner_product"
        rng = np.random.default_rng(seed)
        self.raw = rng.standard_normal((60, 8)).astype(np.float32)
        self.raw *= rng.uniform(0.3, 3, (60, 1)).astype(np.float32)
        self.queries = rng.standard_normal((40, 8)).astype(np.float32)
        self.queries *= rng.uniform(1, 2, (40, 1)).astype(np.float32)

    def _scaled(self, vectors):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / lengths if self.similarity == "cosine" else vectors

    def encode_passages(self, passages, batch_size=64):
        return self._scaled(self.raw[: len(passages)])

    def encode_queries(self, queries, batch_size=64):
        return self._scaled(self.queries[: len(queries)])

    def exact(self) -> np.ndarray:
        """The definition in float64, [questions, passages]."""
        q, p = self.queries.astype(np.float64), self.raw.astype(np.float64)
        if self.similarity == "l2":
            return -((q[:, None] - p[None]) ** 2).sum(-1)
        dot = q @ p.T
        if self.similarity == "dot":
            return dot
        return dot / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(p, axis=1)[None]


SIMILARITIES = ["dot", "cosine", "l2"]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("batch", [1, 40])  # Faiss computes a few distances in another way
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_the_similarity_greatest_first(tmp_path, similarity, batch, seed):
    encoder = VectorEncoder(similarity, seed)
    index = build_index(animals(60), tmp_path / "index", encoder, progress=False)
    faiss_type = "IndexFlatL2" if similarity == "l2" else "IndexFlatIP"
    assert index.manifest["index"]["type"] == faiss_type
    assert index.manifest["encoder"]["similarity"] == similarity
    scores, positions = index.search(encoder.encode_queries([""] * batch), 60)
    exact = encoder.exact()[:batch]
    assert positions.tolist() == np.argsort(-exact, axis=1, kind="stable").tolist()
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1), rtol=1e-4, atol=1e-4)
    assert (np.diff(scores) <= 0).all()
    assert verify(tmp_path / "index") == []


def test_the_three_rank_vectors_of_different_lengths_differently(tmp_path):
    first = {}
    for similarity in SIMILARITIES:
        encoder = VectorEncoder(similarity)
        index = build_index(animals(60), tmp_path / similarity, encoder, progress=False)
        _, first[similarity] = index.search(encoder.encode_queries([""] * 40), 1)
    for one, other in [("dot", "cosine"), ("dot", "l2"), ("cosine", "l2")]:
        assert (first[one] != first[other]).mean() > 0.1, (one, other)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), metric=st.sampled_from(["inner_product", "l2"]))
def test_equal_scores_at_the_edge_go_by_position(built, data, metric):
    """Small whole numbers: scores are exact in float32 and many are equal."""
    import faiss

    index = PassageIndex.open(built)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    vectors = rng.integers(-1, 2, (23, 3)).astype(np.float32)
    queries = rng.integers(-1, 2, (data.draw(st.sampled_from([1, 30])), 3)).astype(np.float32)
    flat = faiss.IndexFlatL2(3) if metric == "l2" else faiss.IndexFlatIP(3)
    flat.add(vectors)
    index.parts = [Part(flat, 0, metric)]
    index.manifest["encoder"]["dimension"] = 3
    exact = queries @ vectors.T
    if metric == "l2":
        exact = -((queries[:, None] - vectors[None]) ** 2).sum(-1)
    k = data.draw(st.integers(1, 23))
    scores, positions = index.search(queries, k)
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    assert positions.tolist() == expected.tolist()
    assert scores.tolist() == np.take_along_axis(exact, expected, 1).tolist()


def test_vectors_are_read_back_as_they_were_given(built):
    index, vectors = PassageIndex.open(built), HashEncoder().encode_passages(animals())
    rows = np.array([3, 0, 22, 3])
    assert index.vectors(rows).dtype == np.float32
    np.testing.assert_array_equal(index.vectors(rows), vectors[rows])
    assert index.vectors(np.array([], dtype=np.int64)).shape == (0, 64)
    for wrong in ([-1], [23], [[0]]):
        with pytest.raises(InputError, match="from 0 to 22"):
            index.vectors(np.array(wrong))


# --- the stored passages --------------------------------------------------------------------------


def test_stored_passages_are_a_corpus(built, monkeypatch):
    stored, corpus = PassageIndex.open(built).corpus, animals()
    assert (stored.name, stored.sha256, len(stored)) == (corpus.name, corpus.sha256, len(corpus))
    assert list(stored) == list(corpus)
    assert stored[-1] == corpus[-1]
    assert stored[3:19:4] == corpus[3:19:4]
    assert [stored.position(p.id) for p in corpus] == list(range(23))
    assert stored.get(corpus[7].id) == corpus[7]
    with pytest.raises(IndexError):
        stored[23]
    for look_up in (stored.position, stored.get):
        with pytest.raises(KeyError):
            look_up("no such passage")


def test_passages_over_many_arrow_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("ragbook.index.passages.BATCH", 4)
    index = build_index(animals(), tmp_path / "index", HashEncoder(), progress=False)
    assert list(index.corpus) == list(animals())
    assert index.corpus.get("newt-17") == animals().get("newt-17")


def test_an_index_can_be_built_from_another_ones_passages(built, tmp_path):
    stored = PassageIndex.open(built).corpus
    index = build_index(stored, tmp_path / "index", HashEncoder(), progress=False)
    assert index.digest == PassageIndex.open(built).digest


# --- damage ---------------------------------------------------------------------------------------


def test_a_whole_index_has_no_problems(built):
    assert verify(built) == []


def flipped(path: Path) -> list[int]:
    """Offsets that sample a file: its ends densely, its middle in strides."""
    size = path.stat().st_size
    return sorted({*range(min(size, 64)), *range(0, size, max(1, size // 150)), size - 1})


@pytest.mark.parametrize("name", ["manifest.json", "passages.arrow", "faiss.index"])
def test_one_flipped_byte_is_found(copy, name):
    whole = (copy / name).read_bytes()
    offsets = range(len(whole)) if name == "manifest.json" else flipped(copy / name)
    for offset in offsets:
        damaged = bytearray(whole)
        damaged[offset] ^= 0x01
        (copy / name).write_bytes(damaged)
        assert verify(copy), f"byte {offset} of {name}"
    (copy / name).write_bytes(whole)
    assert verify(copy) == []


@pytest.mark.parametrize("name", ["passages.arrow", "faiss.index"])
@pytest.mark.parametrize("change", ["missing", "short", "long", "empty"])
def test_file_of_another_size_does_not_open(copy, name, change):
    path = copy / name
    whole = path.read_bytes()
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes({"short": whole[:-1], "long": whole + b"\0", "empty": b""}[change])
    with pytest.raises(InputError, match=f"{name}.*build it again"):
        PassageIndex.open(copy)
    assert name in verify(copy)[0]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"kind": 1}'])
def test_damaged_manifest_does_not_open(copy, content):
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        PassageIndex.open(copy)
    assert len(verify(copy)) == 1


def test_missing_manifest_is_damage_beside_the_files(copy):
    (copy / "manifest.json").unlink()
    with pytest.raises(InputError, match="no manifest"):
        PassageIndex.open(copy)
    assert verify(copy) == [f"{copy / 'manifest.json'} is missing"]


@pytest.mark.parametrize("path", ["", "nowhere", "file"])
def test_what_is_no_index(tmp_path, path):
    (tmp_path / "file").write_text("x")
    for call in (verify, PassageIndex.open):
        with pytest.raises(InputError, match="not a passage index"):
            call(tmp_path / path)


def test_another_programs_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "web app"}))
    for call in (verify, PassageIndex.open):
        with pytest.raises(InputError, match="not the manifest of a passage index"):
            call(tmp_path)


def edit(folder: Path, change) -> None:
    """Change a manifest as if it had been written so."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_bytes(serialize(manifest))


def test_a_manifest_edited_by_hand_does_not_open(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["corpus"]["name"] = "other"
    (copy / "manifest.json").write_text(json.dumps(manifest, indent=2))
    with pytest.raises(InputError, match=r"not as it was written .*SHA-256.*build the index again"):
        PassageIndex.open(copy)


def test_another_format_version_does_not_open(copy, monkeypatch):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format_version": 2}))
    with pytest.raises(InputError, match="format version 2"):
        PassageIndex.open(copy)
    assert "format version 2" in verify(copy)[0]  # edited by hand: a damaged index
    shutil.rmtree(copy)
    with monkeypatch.context() as patch:
        patch.setattr("ragbook.index.manifest.FORMAT_VERSION", 2)
        build_index(animals(), copy, HashEncoder(), progress=False)
    with pytest.raises(InputError, match="format version 2"):  # whole, but of another version
        verify(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["encoder"].update(dimension=63),
        lambda m: m["corpus"].update(passages=22),
        lambda m: m["index"].update(type="IndexIVFFlat"),
        lambda m: m["files"].pop("faiss.index"),
        lambda m: m["files"].update({"../index/faiss.index": m["files"].pop("faiss.index")}),
        lambda m: m["corpus"].pop("name"),
        lambda m: m["encoder"].update(metric="l1"),
        lambda m: m["encoder"].update(prompts=[]),
        lambda m: m["index"]["parameters"].update(effort=-1),
        lambda m: m["index"]["parameters"].update(parts=2**31),
        lambda m: m["index"]["parameters"].update(parts=2**31 - 1),
        lambda m: m["index"]["parameters"].update(parts=2),
        lambda m: m["index"]["parameters"].update(factory=["Flat"]),
        lambda m: m["corpus"].update(passages="23"),
        lambda m: m["files"]["faiss.index"].update(bytes=-1),
    ],
)
def test_manifest_that_contradicts_the_files_does_not_open(copy, change):
    edit(copy, change)
    with pytest.raises(InputError, match="again"):
        PassageIndex.open(copy)
    assert verify(copy)


@pytest.mark.parametrize("change", [{"passages": 22}, {"sha256": "0" * 64}])
def test_verify_compares_contents_even_where_all_hashes_hold(copy, change):
    manifest = json.loads((copy / "manifest.json").read_text())
    write_manifest(
        copy,
        corpus=manifest["corpus"] | change,
        encoder=manifest["encoder"],
        index=manifest["index"],
        files=list(manifest["files"]),
    )
    assert len(verify(copy)) == 1


def test_damaged_headers_of_the_same_size_do_not_crash_opening(copy):
    for name in ("faiss.index", "passages.arrow"):
        whole = (copy / name).read_bytes()
        for offset in [*range(64), len(whole) - 8, len(whole) - 20]:
            damaged = bytearray(whole)
            damaged[offset] ^= 0x80
            (copy / name).write_bytes(damaged)
            with suppress(InputError):  # not every byte can be checked when opening
                PassageIndex.open(copy)
        (copy / name).write_bytes(whole)
