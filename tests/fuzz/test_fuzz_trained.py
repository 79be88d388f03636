"""Folders that this package's trainings write, damaged in every way: the right weights and
settings, or one sentence.

The models have the shape of the bundled ones with few numbers, so that hundreds load in a minute.
`RAGBOOK_FUZZ=N` draws N times as many cases.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from ragbook import manifests
from ragbook.errors import InputError
from ragbook.files import file_records
from ragbook.models import bundled, loading
from ragbook.models.changes import changes
from ragbook.models.embedded import MINILM_SHA256, minilm_tokenizer
from ragbook.models.encoder import load_encoder, look_up_encoder, save_encoder
from ragbook.models.lm import new_lm_model
from ragbook.models.span import SpanScorer
from ragbook.models.towers import Encoder, tensors_sha256
from ragbook.training.loop import write_tensors
from ragbook.training.reader.train import trained_tensors
from tests.fuzz.conftest import damaged as damaged_bytes
from tests.fuzz.conftest import fuzzed
from tests.fuzz.test_fuzz_indexes import Changed, change
from tests.models.damage import OF_ANY_FILE, OF_TENSORS, damaged

SETTINGS = {
    "knn_lm": {
        "own": {"lam": 0.7, "temperature": 3.0},
        "shared": {"lam": 0.6, "temperature": 10.0},
    },
    "perplexity": {"lam": 0.3, "temperature": 10.0},
    "length_penalty": {"own": {"rag-token": 1.0}, "shared": {"rag-token": 2.0, "fid": 0.0}},
}
METHODS = ("fid", "rag-token", "realm")
WHOLE = ("encoder", "decoder", "span", "lm")
"""The files that lack no tensor of theirs; those of `METHODS` hold what happened to change."""


def tiny() -> BertModel:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(minilm_tokenizer()), hidden_size=8, num_hidden_layers=3,
        num_attention_heads=2, intermediate_size=8, max_position_embeddings=64,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """A small model in the embedded encoder's place."""
    model = tiny()
    with pytest.MonkeyPatch.context() as patch:
        for place in ("bundled", "encoder", "lm"):
            patch.setattr(f"ragbook.models.{place}.minilm_model", lambda: deepcopy(model))
        yield
    forget()


def forget() -> None:
    """Folders of the same name are read again."""
    bundled.manifest.cache_clear()
    for name in ("_reader", "_span_reader", "_language_model", "load_question_tower"):
        getattr(loading, name).__wrapped__.cache_clear()
    loading._embedded.cache_clear()


@torch.no_grad()
def moved(module: Any, seed: int) -> Any:
    """A copy with other weights, but for the word embeddings and what hangs on them."""
    torch.manual_seed(seed)
    copy, words = deepcopy(module), len(minilm_tokenizer())
    for parameter in copy.parameters():
        if words not in parameter.shape:
            parameter.add_(torch.randn_like(parameter).bfloat16())
    return copy


def write_readers(folder: Path) -> None:
    """What `ragbook train reader`, `methods` and `lm` and the tuning write."""
    folder.mkdir()
    model, scorer = bundled.new_reader_model(), SpanScorer(8)
    model = moved(model, 1)
    for name, parameter in model.named_parameters():
        low = "encoder.embeddings" in name or "word_embeddings" in name
        parameter.requires_grad = not low and "encoder.encoder.layer.0." not in name
    files = trained_tensors(model, scorer)
    files["decoder"] = {n: v for n, v in files["decoder"].items() if 30_522 not in v.shape}
    files["decoder"]["cls.predictions.bias"] = torch.ones(30_522, dtype=torch.bfloat16)
    lm = moved(new_lm_model(), 2)
    files["lm"] = {
        name: value.detach()
        for name, value in lm.named_parameters()
        if "embeddings" not in name and "layer.0." not in name
    }
    for seed, method in enumerate(METHODS, 3):
        part = ("scorer", scorer) if method == "realm" else ("decoder", model.decoder)
        pairs = [part, ("query", bundled.minilm_model())]
        files[method] = {
            f"{name}.{key}": value
            for name, module in pairs
            for key, value in changes(
                dict(module.named_parameters()), dict(moved(module, seed).named_parameters()), 1
            ).items()
        }
    for name, tensors in files.items():
        write_tensors(folder / f"{name}.safetensors", tensors)
    bundled.write_manifest(folder, **SETTINGS)


def write_encoder(folder: Path) -> None:
    """What `ragbook train dpr` writes."""
    base = bundled.minilm_model()
    encoder = Encoder(
        base, minilm_tokenizer(), "tiny", MINILM_SHA256, 20.0,
        query_model=moved(base, 9), query_sha256="other",
    )  # fmt: skip
    save_encoder(folder, encoder)


def of_readers(folder: Path) -> dict[str, Any]:
    """The weights and settings that a folder of readers gives."""
    forget()
    name = str(folder)
    loading.look_up(name)
    found: dict[str, Any] = {"lm": loading.load_language_model(name).model}
    found["shared"] = loading.load_reader(name).model
    for method in METHODS:
        if method == "realm":
            reader: Any = loading.load_span_reader(name, method)
            found[method] = torch.nn.ModuleList([reader.pairs.encoder, reader.scorer])
        else:
            found[method] = loading.load_reader(name, method).model
        tower = loading.load_question_tower(name, method)
        found[f"{method}'s tower"] = None if tower is None else tower.query_model
    out = {key: value and tensors_sha256(value.state_dict()) for key, value in found.items()}
    for module in found.values():
        assert module is None or all(bool(p.isfinite().all()) for p in module.parameters())
    penalties = {s: bundled.length_penalties(name, s == "shared") for s in ("own", "shared")}
    said = bundled.manifest(folder)
    return {"weights": out, "settings": {**said, "length_penalty": penalties}}


def of_encoder(folder: Path) -> dict[str, Any]:
    look_up_encoder(str(folder))
    encoder = load_encoder(str(folder))
    towers = [encoder.passage_model, encoder.query_model]
    settings = ("pooling", "similarity", "score_scale", "passage_form")
    return {
        "weights": [tensors_sha256(tower.state_dict()) for tower in towers],
        "settings": {name: getattr(encoder, name) for name in settings},
    }


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], dict[str, Any]], str]] = {
    "readers": (write_readers, of_readers, "weights.json"),
    "encoder": (write_encoder, of_encoder, "encoder.json"),
}
"""Kind -> (writes a folder, what it gives, its manifest)."""


@pytest.fixture(scope="module")
def good(small, tmp_path_factory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A good folder of each kind, and what it gives."""
    root, found = tmp_path_factory.mktemp("trained"), {}
    for kind, (write, read, _) in KINDS.items():
        write(root / kind)
        found[kind] = root / kind, read(root / kind)
    return found


def told(read: Callable[[Path], Any], folder: Path) -> Any:
    """What a folder gives, or None where it is refused in one sentence."""
    try:
        return read(folder)
    except InputError as refused:
        sentence = str(refused)
        assert sentence.isprintable(), repr(sentence)
        assert 20 < len(sentence) < 1200
        assert str(folder) in sentence or "weights" in sentence or "change" in sentence
        return None


def within_bounds(kind: str, settings: dict[str, Any]) -> None:
    """What a manifest may say, by hand."""
    if kind == "encoder":
        assert settings["pooling"] in ("mean", "cls")
        assert settings["similarity"] in ("cosine", "dot", "l2")
        assert 0 < settings["score_scale"] <= 1e6
        return
    # What else stands there is not read.
    tuned = settings.get("knn_lm", {})
    for mixed in (tuned.get("own"), tuned.get("shared"), settings.get("perplexity")):
        if mixed is not None:
            assert 0 <= mixed["lam"] <= 1
            assert 0 < mixed["temperature"] <= 1e6
    for penalties in settings["length_penalty"].values():
        assert all(isinstance(v, int | float) and abs(v) <= 10 for v in penalties.values())
    for name, record in settings["files"].items():
        assert "/" not in name
        assert name not in ("", ".", "..")
        assert set(record["sha256"]) <= set("0123456789abcdef")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signed", [True, False])
@fuzzed(25)
@given(data=st.data())
def test_changed_manifests(good, kind, signed, data):
    """Signed anew, as if this project had written them, or as an older version did, without a
    hash: what loads has all its weights, and settings within their bounds."""
    folder, expected = good[kind]
    _, read, name = KINDS[kind]
    said = json.loads((folder / name).read_text())
    del said["sha256"]
    for _ in range(data.draw(st.integers(1, 2))):
        said = change(data, said)
    raw = manifests.serialize(said) if signed else json.dumps(said).encode()
    with Changed(folder / name, raw):
        found = told(read, folder)
    if found is not None:
        assert found["weights"] == expected["weights"]
        within_bounds(kind, found["settings"])


@pytest.mark.parametrize("kind", KINDS)
@fuzzed(25)
@given(data=st.data())
def test_damaged_bytes_of_manifests(good, kind, data):
    """Not signed anew: nothing but what was written may come out."""
    folder, expected = good[kind]
    _, read, name = KINDS[kind]
    raw = data.draw(damaged_bytes((folder / name).read_bytes()))
    with Changed(folder / name, raw):
        found = told(read, folder)
    if found is not None:
        assert found["weights"] == expected["weights"]
        for key, value in expected["settings"].items():
            assert key == "sha256" or found["settings"][key] == value


@pytest.mark.parametrize("kind", KINDS)
@fuzzed(25)
@given(data=st.data())
def test_damaged_files(good, kind, data, tmp_path_factory):
    """Their hashes are right again, so that the loaders read them."""
    folder, expected = good[kind]
    _, read, name = KINDS[kind]
    files = sorted(path.name for path in folder.iterdir())
    file = data.draw(st.sampled_from(files))
    known = OF_ANY_FILE | (OF_TENSORS if file.endswith(".safetensors") else {})
    what = data.draw(st.sampled_from(sorted(known)))
    out = tmp_path_factory.mktemp("damaged") / "folder"
    found = told(read, damaged(folder, out, file, known[what]))
    shutil.rmtree(out)
    if found is None or what == "64-bit floats" or what == "8-bit floats":
        return
    # A method's own file may be absent, or hold less: then nothing says that there was more.
    assert file != name
    assert file.removesuffix(".safetensors") not in WHOLE or found["weights"] == expected["weights"]


@pytest.mark.parametrize("kind", KINDS)
@fuzzed(25)
@given(data=st.data())
def test_damaged_bytes_of_headers(good, kind, data):
    """Of the files of tensors, whose hashes are right again."""
    folder, _ = good[kind]
    _, read, name = KINDS[kind]
    file = data.draw(st.sampled_from(sorted(path.name for path in folder.glob("*.safetensors"))))
    raw = bytearray((folder / file).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, 2000)) % len(raw)] = data.draw(st.integers(0, 255))
    if bytes(raw) == (folder / file).read_bytes():
        return  # the bytes drawn were there already
    with Changed(folder / file, bytes(raw)):
        assert told(read, folder) is None  # the hash says so
        said = json.loads((folder / name).read_text())
        said["files"] = file_records(folder, said["files"])
        with Changed(folder / name, manifests.serialize(said)):
            told(read, folder)


@pytest.mark.parametrize("file", WHOLE)
def test_every_tensor_that_is_missing_is_missed(good, file):
    folder, _ = good["readers"]
    path = folder / f"{file}.safetensors"
    whole, said = load_file(str(path)), json.loads((folder / "weights.json").read_text())
    for name in whole:
        part = {key: value for key, value in whole.items() if key != name}
        scratch = folder.parent / "part.safetensors"
        save_file(part, str(scratch))
        with Changed(path, scratch.read_bytes()):
            said["files"] = file_records(folder, said["files"])
            load: Any = loading.load_language_model if file == "lm" else loading.load_span_reader
            forget()
            with (
                Changed(folder / "weights.json", manifests.serialize(said)),
                pytest.raises(InputError, match="lack tensors"),
            ):
                load(str(folder))


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "C:\\x", "..", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_names_that_lead_outside_are_not_followed(good, kind, name, monkeypatch):
    folder, _ = good[kind]
    _, read, manifest = KINDS[kind]
    said = json.loads((folder / manifest).read_text())
    said["files"][name] = next(iter(said["files"].values()))
    hashed = []
    for module in ("bundled", "encoder_manifest"):
        monkeypatch.setattr(f"ragbook.models.{module}.sha256_of_file", hashed.append)
    with Changed(folder / manifest, manifests.serialize(said)):
        assert told(read, folder) is None
    assert not hashed


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_there_and_not_listed_is_missed(good, kind):
    """Else the shared reader, or the embedded encoder, would be used in its place."""
    folder, _ = good[kind]
    _, read, manifest = KINDS[kind]
    for file in (path.name for path in sorted(folder.glob("*.safetensors"))):
        said = json.loads((folder / manifest).read_text())
        del said["files"][file]
        with Changed(folder / manifest, manifests.serialize(said)):
            assert told(read, folder) is None, file


@pytest.mark.parametrize(
    ("change_to", "sentence"),
    [
        (
            {"knn_lm": SETTINGS["knn_lm"] | {"own": {"lam": 1.5, "temperature": 10.0}}},
            r"<= 1.*\$\.knn_lm\.own\.lam",
        ),
        (
            {"knn_lm": SETTINGS["knn_lm"] | {"shared": {"lam": 0.5, "temperature": 0}}},
            r"\$\.knn_lm\.shared\.temperature",
        ),
        ({"knn_lm": {"lam": 0.5, "temperature": 1.0}}, r"own.*\$\.knn_lm"),
        ({"perplexity": {"lam": None, "temperature": 1.0}}, r"float.*\$\.perplexity\.lam"),
        ({"perplexity": {"lam": 0.5}}, r"temperature.*\$\.perplexity"),
        (
            {"length_penalty": {"own": {"fid": 0.0, "rag-token": "x"}}},
            r"\$\.length_penalty\.own\['rag-token'\]",
        ),
        (
            {"files": {"a": {"sha256": "0" * 64, "bytes": 1}, "b": {"sha256": "0", "bytes": 1}}},
            r"\$\.files\['b'\]\.sha256",
        ),
        ({"files": {"a": {"sha256": "0" * 64, "bytes": -1}}}, r"\$\.files\['a'\]\.bytes"),
    ],
)
def test_the_sentence_names_the_entry_and_what_to_do(tmp_path, change_to, sentence):
    path = tmp_path / "weights.json"
    path.write_bytes(manifests.serialize({"files": {}, **change_to}))
    forget()
    with pytest.raises(InputError, match=rf"weights\.json is damaged \(.*{sentence}.*; restore it"):
        bundled.manifest(tmp_path)


def test_older_manifests_load(good):
    """They have no hash of themselves."""
    for kind, (folder, expected) in good.items():
        _, read, name = KINDS[kind]
        said = json.loads((folder / name).read_text())
        del said["sha256"]
        with Changed(folder / name, json.dumps(said).encode()):
            assert read(folder)["weights"] == expected["weights"]
