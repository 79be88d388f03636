"""What is no encoder, or not a safe one, is refused in one sentence, and nothing of it is run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragbook import cli
from ragbook.errors import InputError
from ragbook.models import load_encoder
from ragbook.models.model_files import quiet
from tests.models.tiny_encoders import dense, model, tokenizer, write_plain, write_sentence

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write_plain(tmp_path_factory.mktemp("plain") / "bert", "BertModel")


@pytest.fixture(scope="module")
def described(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("described") / "st"
    write_sentence(folder, "mean", dense())
    return folder


@pytest.fixture
def copy(plain, tmp_path) -> Path:
    return shutil.copytree(plain, tmp_path / "copy")


@pytest.fixture
def st(described, tmp_path) -> Path:
    return shutil.copytree(described, tmp_path / "st")


def refusal(capsys, folder: Path, *options: str) -> str:
    """The one sentence with which `index build` refuses an encoder."""
    capsys.readouterr()
    out = folder.with_name("index")
    build = ["index", "build", "--corpus", "miniwiki", "--out", str(out)]
    assert cli.main([*build, "--encoder", str(folder), *options]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert len(error.splitlines()) == 1
    assert error.startswith("ragbook: ")
    return error


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("BertForSequenceClassification", ["is a classifier", "name an encoder"]),
        ("BertForTokenClassification", ["is a classifier"]),
        ("ViTModel", ["is not a model for text only", "name an encoder of text"]),
        ("T5ForConditionalGeneration", ["is a seq2seq model", "--reader", "and not an encoder"]),
        ("GPT2LMHeadModel", ["is a causal language model", "--pooling last", "--reader or --lm"]),
    ],
)
def test_other_models_are_refused_and_what_would_do_is_said(capsys, tmp_path, kind, words):
    sentence = refusal(capsys, write_plain(tmp_path / kind, kind))
    assert all(each in sentence for each in words), sentence


def test_the_first_token_of_a_causal_model_is_refused(capsys, tmp_path):
    folder = write_plain(tmp_path / "gpt", "GPT2LMHeadModel")
    assert "is a causal language model" in refusal(capsys, folder, "--pooling", "cls")


def test_a_masked_language_model_is_an_encoder_without_its_head(tmp_path):
    """Its head has no place in the encoder, and its file has no pooler."""
    whole = write_plain(tmp_path / "mlm", "BertForMaskedLM")
    encoder = load_encoder(whole)
    with torch.no_grad():
        asked = ["the river", "a lake of the river"]
        inputs = tokenizer()(asked, padding=True, return_tensors="pt")
        states = model("BertForMaskedLM").bert(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None]
        means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    found = encoder.encode_queries(asked)
    torch.testing.assert_close(torch.from_numpy(found), means, atol=1e-5, rtol=0)
    assert encoder.sha256 == load_encoder(whole).sha256  # the pooler is not drawn at random


@pytest.mark.parametrize("missing", ["tokenizer", "weights", "all"])
def test_what_is_missing_is_named(capsys, copy, missing):
    if missing == "tokenizer":
        (copy / "tokenizer.json").unlink()
        assert "has no tokenizer" in refusal(capsys, copy)
    elif missing == "weights":
        (copy / "model.safetensors").unlink()
        assert "has no model.safetensors in copy" in refusal(capsys, copy)
    else:
        shutil.rmtree(copy)
        sentence = refusal(capsys, copy)
        assert "there is no encoder" in sentence
        assert "choose 'minilm', a sentence-transformers or BERT-like model" in sentence


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model-Q4_1.gguf"])
def test_other_forms_of_weights_are_refused(capsys, copy, name):
    (copy / "model.safetensors").rename(copy / name)
    sentence = refusal(capsys, copy)
    assert f"has no model.safetensors (only {name})" in sentence
    assert "save_pretrained" in sentence


def test_a_pickled_module_is_refused(capsys, st):
    (st / "2_Dense" / "model.safetensors").rename(st / "2_Dense" / "pytorch_model.bin")
    assert "(only pytorch_model.bin) in 2_Dense" in refusal(capsys, st)


def test_a_sentencepiece_model_alone_is_refused(capsys, copy):
    (copy / "tokenizer.json").rename(copy / "sentencepiece.bpe.model")
    sentence = refusal(capsys, copy)
    assert "SentencePiece model (sentencepiece.bpe.model) and no fast tokenizer" in sentence


def test_an_adapter_is_refused(capsys, copy):
    (copy / "adapter_config.json").write_text("{}")
    assert "is an adapter without its base model" in refusal(capsys, copy)


def change_tensors(folder: Path, change) -> None:
    tensors = load_file(str(folder / "model.safetensors"))
    change(tensors)
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})


@pytest.mark.parametrize("layout", ["plain", "st"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t.pop("encoder.layer.1.output.dense.bias"),
            "lacks tensors of its model: encoder.layer.1.output.dense.bias;",
        ),
        (
            lambda t: t.update({"encoder.layer.2.output.dense.bias": torch.zeros(16)}),
            "does not have: encoder.layer.2.output.dense.bias;",
        ),
        (lambda t: t.update({"surprise": torch.zeros(2)}), "does not have: surprise;"),
        (
            lambda t: t.update({"embeddings.word_embeddings.weight": torch.zeros(5, 16)}),
            "of other shapes than its config.json says: embeddings.word_embeddings.weight;",
        ),
    ],
)
def test_tensors_are_refused_by_name(capsys, copy, st, layout, change, words):
    folder = {"plain": copy, "st": st}[layout]
    change_tensors(folder, change)
    assert words in refusal(capsys, folder)


def test_a_pooler_may_be_absent(copy):
    before = load_encoder(copy).encode_queries(["the river"])
    change_tensors(copy, lambda t: [t.pop(name) for name in list(t) if name.startswith("pooler")])
    assert (load_encoder(copy).encode_queries(["the river"]) == before).all()


@pytest.mark.parametrize("module", ["2_Dense", ""])
def test_a_damaged_file_is_refused(capsys, st, module):
    path = st / module / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert "model.safetensors of" in (said := refusal(capsys, st))
    assert "is damaged" in said


def test_settings_that_are_no_json_are_refused(capsys, st):
    (st / "modules.json").write_text("[{")
    assert "modules.json" in refusal(capsys, st)
    (st / "modules.json").write_text("[]")
    assert "does not begin with a module that reads text" in refusal(capsys, st)


# --- code -----------------------------------------------------------------------------------------

CODE = "from pathlib import Path\nPath({ran!r}).touch()\n\n\nclass Own:\n    pass\n"


def with_code(folder: Path) -> Path:
    """Put a module into the folder that leaves a mark when it is run; the mark."""
    ran = folder.with_name("ran")
    for name in ("modeling_own.py", "own.py"):
        (folder / name).write_text(CODE.format(ran=str(ran)))
    return ran


def answered_yes(folder: Path) -> str:
    """What `index build` says with `y` on standard input, in the folder that holds the code."""
    run = subprocess.run(
        [sys.executable, "-m", "ragbook", "index", "build", "--corpus", "miniwiki",
         "--out", str(folder.with_name("index")), "--encoder", str(folder)],
        input="y\ny\ny\n", capture_output=True, text=True, cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 2
    assert not run.stdout
    assert len(run.stderr.splitlines()) == 1
    return run.stderr


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_folder_brings_is_not_run(copy, file):
    ran = with_code(copy)
    edit(copy / file, auto_map={"AutoModel": "modeling_own.Own", "AutoConfig": "modeling_own.Own"})
    assert f"brings code of its own (auto_map in {file})" in answered_yes(copy)
    assert not ran.exists()


def test_a_module_that_is_not_sentence_transformers_own_is_not_imported(st):
    ran = with_code(st)
    modules = json.loads((st / "modules.json").read_text())
    modules[1]["type"] = "own.Own"
    (st / "modules.json").write_text(json.dumps(modules))
    assert "has the module 'own.Own'" in answered_yes(st)
    assert not ran.exists()


@pytest.mark.parametrize(
    "kind",
    [
        "sentence_transformers.models.WordEmbeddings",  # imports a tokenizer by its name
        "sentence_transformers.models.Router",
        "sentence_transformers.util.import_from_string",
        "sentence_transformers.models.Dense.Dense.Transformer",
        "sentence_transformers_evil.models.Dense",
        "xsentence_transformers.models.Dense",
    ],
)
def test_only_modules_of_the_list_are_loaded(st, kind):
    modules = json.loads((st / "modules.json").read_text())
    modules[2]["type"] = kind
    (st / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="has the module"):
        load_encoder(st)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("2_Dense/config.json", {"activation_function": "own.Own"}, "activation 'own.Own'"),
        (
            "sentence_bert_config.json",
            {"model_args": {"attn_implementation": "somebody/kernel"}},
            "settings that ragbook does not read: model_args",
        ),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method": "push_to_hub", "method_output_name": "x"}}},
            "calls the method 'push_to_hub'",
        ),
        ("config.json", {"attn_implementation": "somebody/kernel"}, "attends with code of the hub"),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "is a CrossEncoder"),
        (
            "config_sentence_transformers.json",
            {"similarity_fn_name": "manhattan"},
            "compares by manhattan, which cannot be indexed",
        ),
    ],
)
def test_settings_are_refused_by_name(st, file, changes, words):
    edit(st / file, **changes)
    with pytest.raises(InputError, match=words):
        load_encoder(st)


def test_a_path_that_leads_out_is_refused(st):
    modules = json.loads((st / "modules.json").read_text())
    modules[2]["path"] = "../elsewhere"
    (st / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="which is outside its folder"):
        load_encoder(st)


def test_half_a_dpr_pair_needs_its_name(tmp_path):
    from transformers import DPRConfig, DPRContextEncoder

    folder = tmp_path / "half"
    shape: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with quiet():
        DPRContextEncoder(DPRConfig(vocab_size=len(tokenizer()), **shape)).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    with pytest.raises(InputError, match="is one half of a DPR pair"):
        load_encoder(folder)


def test_a_name_of_the_hub_that_is_not_there_is_refused(monkeypatch, tmp_path):
    """Without a network, and without asking again for a name that can be none."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/nothing", "../nothing", "a/b/c", "no such"):
        with pytest.raises(InputError, match="there is no encoder"):
            load_encoder(name)


def test_a_checkpoint_of_the_hubs_cache_is_found(monkeypatch, plain, tmp_path):
    import huggingface_hub

    asked = []

    def snapshot(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(plain)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    encoder = load_encoder("somebody/bert")
    assert encoder.id == "somebody/bert"
    assert encoder.sha256 == load_encoder(plain).sha256
    ((name, patterns),) = asked
    assert name == "somebody/bert"
    assert not any(pattern.endswith((".bin", ".py", ".pt", "*")) for pattern in patterns)
