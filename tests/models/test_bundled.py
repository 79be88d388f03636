"""The bundled weights and the embedded encoder: hashes, sizes, and what they can do."""

import json
import shutil

import numpy as np
import pytest
import torch

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.files import sha256_of_file
from ragbook.models import (
    bundled,
    embedded,
    load_encoder,
    load_language_model,
    load_reader,
    load_span_reader,
    loading,
)
from ragbook.models.changes import apply, part
from ragbook.models.embedded import MINILM_SHA256
from ragbook.models.loading import load_joint
from ragbook.models.unfilled import unfilled

PASSAGE = Passage(
    "x-1", "Lake Velm", "Lake Velm lies in Ordania. It was first charted by Ilsa Brenkov in 1873."
)
QUESTION = Question("Who first charted Lake Velm?", ("Ilsa Brenkov",), "x-1")


def test_the_embedded_weights_are_the_published_file():
    assert sha256_of_file(embedded.minilm_path() / "model.safetensors") == MINILM_SHA256


def _filled_lm():
    return loading._bundled_lm(bundled.WEIGHTS)


@pytest.mark.parametrize("make", [embedded.minilm_model, bundled.reader_model, _filled_lm])
def test_a_model_that_is_filled_from_files_needs_no_first_values(make):
    """Nothing of what memory held before is left in it, and shared tensors stay shared."""
    with unfilled():
        spared = make()
        torch.randn(2)  # the generator works
    whole = make()
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(spared, kind)()), dict(getattr(whole, kind)())
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_models_made_later_have_first_values_again():
    with unfilled():
        pass
    weights = torch.nn.Linear(64, 64).weight.detach()
    assert 0.05 < float(weights.std()) < 0.1  # uniform within 1/8: 0.072


def test_a_question_tower_is_the_embedded_encoder_with_its_changes():
    changed = part(bundled.tensors("realm.safetensors"), "query")
    expected = load_encoder().untied()
    apply(expected.query_model, changed)
    tower = loading.load_question_tower("bundled", "realm")
    assert tower is not None
    assert tower.encode_queries([QUESTION.text]).tobytes() == (
        expected.encode_queries([QUESTION.text]).tobytes()
    )
    plain = load_encoder()  # which the tower shares tensors with one of, and leaves as it is
    assert loading._embedded().encode_queries([QUESTION.text]).tobytes() == (
        plain.encode_queries([QUESTION.text]).tobytes()
    )


def test_all_shipped_weights_fit_into_45_megabytes():
    listed = bundled.manifest()["files"]
    on_disk = {path.name: path for path in bundled.WEIGHTS.glob("*.safetensors")}
    assert (
        set(on_disk)
        == set(listed)
        == {
            "encoder.safetensors",
            "decoder.safetensors",
            "span.safetensors",
            "lm.safetensors",
            "realm.safetensors",
            "rag-sequence.safetensors",
            "rag-token.safetensors",
            "fid.safetensors",
            "knn-lm.safetensors",
            "rag-joint.safetensors",
            "query.safetensors",
        }
    )
    assert sum(path.stat().st_size for path in on_disk.values()) <= 45_000_000
    for name, entry in listed.items():
        assert sha256_of_file(on_disk[name]) == entry["sha256"]
        assert on_disk[name].stat().st_size == entry["bytes"]


@pytest.mark.parametrize("position", [0, 1000, -1])
def test_a_flipped_byte_is_refused(tmp_path, position):
    for name in ("weights.json", "span.safetensors"):
        shutil.copy(bundled.WEIGHTS / name, tmp_path / name)
    path = tmp_path / "span.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"span\.safetensors is missing or damaged"):
        bundled.tensors("span.safetensors", tmp_path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match="weights are missing"):
        bundled.manifest(tmp_path)
    (tmp_path / "weights.json").write_text(json.dumps({"files": {}}))
    bundled.manifest.cache_clear()
    with pytest.raises(InputError, match="missing or damaged"):
        bundled.tensors("lm.safetensors", tmp_path)


def test_a_model_that_is_nowhere_is_named_in_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # asks no host
    for load in (load_reader, load_language_model):
        with pytest.raises(InputError, match="there is no model 'no-such/model'"):
            load("no-such/model")
    with pytest.raises(InputError, match="there is no encoder 'other'"):
        load_encoder("other")


def test_the_encoder_is_the_mean_of_states_scaled_to_one():
    encoder = load_encoder()
    texts = ["Lake Velm", "A much longer text about something else, such as rivers."]
    vectors = encoder.encode_queries(texts)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            states = encoder.model(**encoder.tokenizer(text, return_tensors="pt"))[0][0]
        mean = states.mean(0).double().numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=2e-6)
    (passage,) = encoder.encode_passages([PASSAGE])
    (same,) = encoder.encode_queries([f"{PASSAGE.title}. {PASSAGE.text}"])
    np.testing.assert_array_equal(passage, same)


def test_batches_do_not_change_a_vector():
    encoder = load_encoder()
    texts = [f"{'word ' * n}of number {n}" for n in range(1, 30, 3)]
    np.testing.assert_allclose(
        encoder.encode_queries(texts, batch_size=3),
        np.concatenate([encoder.encode_queries([text]) for text in texts]),
        atol=2e-6,
    )


def test_the_readers_copy_a_name_they_have_never_seen():
    """Both readers, given the one passage: the answer is the name that stands in it."""
    span = load_span_reader()
    inputs, log_probs = span.span_log_probs([QUESTION.text], [PASSAGE])
    best = int(log_probs.flatten(1).argmax())
    start, width = divmod(best, log_probs.shape[2])
    offsets = inputs.offsets[0]
    assert inputs.texts[0][offsets[start, 0] : offsets[start + width, 1]] == "Ilsa Brenkov"

    reader = load_reader()
    states, mask = reader.encode_documents([QUESTION], [[PASSAGE]])
    memory = reader.memory(states[:, 0], mask[:, 0])
    following, row, tokens = reader.continuation(memory), torch.tensor([0]), []
    while len(tokens) < 12:
        prefix = torch.tensor([[reader.start, *tokens]])
        token = int(following(prefix, row, row).argmax())
        if token == reader.end:
            break
        tokens.append(token)
    assert reader.decode(tokens) == "ilsa brenkov"


def test_the_language_model_knows_nothing_of_the_future():
    """A causal model: what comes later does not change what was predicted before."""
    lm = load_language_model()
    ids = lm.passage_ids(PASSAGE)
    keys, log_probs = lm.forward(torch.tensor([ids]))
    other = [*ids[:8], *reversed(ids[8:])]
    keys_other, log_probs_other = lm.forward(torch.tensor([other]))
    torch.testing.assert_close(log_probs[:, :8], log_probs_other[:, :8])
    torch.testing.assert_close(keys[:, :8], keys_other[:, :8])
    assert (log_probs[:, 9] - log_probs_other[:, 9]).abs().max() > 1e-3
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, len(ids)))


def test_padding_does_not_change_a_memory():
    lm = load_language_model()
    long = Passage("y", "Long", "word " * 60)
    together, alone = lm.key_values([PASSAGE, long])[0], lm.key_values([PASSAGE])[0]
    torch.testing.assert_close(together[0], alone[0], rtol=1e-4, atol=1e-4)
    assert torch.equal(together[1], alone[1])


def test_the_question_tower_trained_with_rag_searches_the_embedded_encoders_indexes():
    """Its passages are the embedded encoder's, its questions near theirs and yet others."""
    plain = load_encoder()
    _, encoder = load_joint()
    assert encoder.sha256 == plain.sha256
    assert encoder.query_sha256 != plain.query_sha256
    (a,), (b,) = (e.encode_queries([QUESTION.text]) for e in (plain, encoder))
    assert 0.5 < float(a @ b) < 0.9999
