"""What is refused by name in folders of models of every kind, before or after they are loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ragbook.errors import InputError
from ragbook.files import file_records
from ragbook.manifests import serialize
from ragbook.models import bundled
from ragbook.models.changes import apply, are_changes
from ragbook.models.filling import NONE, fill
from ragbook.models.loading import look_up
from ragbook.models.model_files import check_counts, check_size, numbers_in, settings_of
from tests.checkpoints import write_checkpoint
from tests.models.damage import NESTED, damaged, header_changed, setting, tensors_changed, written
from tests.models.folders import KINDS

ROOT = Path(__file__).parents[2]
WEIGHTS = {"DPR": "dpr-question_encoder-tiny/model.safetensors", "saved encoder":
           "query.safetensors", "saved towers": "passage/model.safetensors",
           "reader in pieces": "model-00002-of-00007.safetensors",
           "adapter": "adapter_model.safetensors"}  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A good folder of a kind, written when it is first asked for."""
    found: dict[str, Path] = {}

    def of(kind):
        if kind not in found:
            found[kind] = tmp_path_factory.mktemp("good") / "model"
            KINDS[kind][0](found[kind])
        return found[kind]

    return of


def refusal(kind: str, folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        KINDS[kind][1](folder)
    assert str(refused.value).isprintable()
    return str(refused.value)


def _matrix(tensors: dict[str, torch.Tensor]) -> str:
    """A matrix that no other name repeats, within a layer."""
    return next(
        n for n, t in sorted(tensors.items()) if t.dim() == 2 and ".0." in n and "bias" not in n
    )


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_missing_or_others_are_named(kind, good, tmp_path):
    """An absent tensor would be drawn at random, and a file without any make all of them so."""
    file = WEIGHTS.get(kind, "model.safetensors")
    name = _matrix(load_file(str(good(kind) / file)))
    short = name.split(".0.")[1].replace("module.", "")  # models rename what is before it
    changes = {
        "missing": lambda t: t.pop(name),
        "more": lambda t: t.update({f"{name}.more": torch.ones(2, 2)}),
        "shape": lambda t: t.update({name: t[name][:, :-1]}),
        "not numbers": lambda t: t.update({name: t[name] * float("nan")}),
        "whole numbers": lambda t: t.update({name: t[name].to(torch.int64)}),
    }
    for what, change in changes.items():
        folder = damaged(good(kind), tmp_path / what / "m", file, tensors_changed(change))
        said = refusal(kind, folder)
        assert short in said or "shape" in said or "damaged" in said, (what, said)
    folder = damaged(good(kind), tmp_path / "none" / "m", file, tensors_changed(dict.clear))
    assert "tensors" in refusal(kind, folder)


@pytest.mark.parametrize("kind", ["causal reader", "RAG", "encoder", "DPR", "saved encoder", "FiD"])
def test_code_in_a_folder_is_never_run_nor_asked_about(kind, good, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(1) or "y")
    folder = tmp_path / "model"
    shutil.copytree(good(kind), folder)
    ran = tmp_path / "ran"
    for config in list(folder.rglob("config.json")):
        (config.parent / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: pass\n")
        setting("auto_map", {"AutoConfig": "own.Own", "AutoModel": "own.Own"})(config)
    if (folder / "encoder.json").is_file():
        said = json.loads((folder / "encoder.json").read_text())
        said["files"] = file_records(folder, said["files"])
        (folder / "encoder.json").write_bytes(serialize(said))
    assert "brings code of its own (auto_map in config.json)" in refusal(kind, folder)
    assert not asked
    assert not ran.exists()


@pytest.mark.parametrize("command", ["ask", "compare"])
def test_who_answers_yes_on_the_terminal_runs_no_code_either(command, tmp_path):
    folder = write_checkpoint(tmp_path / "model", "gpt2")
    setting("auto_map", {"AutoModelForCausalLM": "own.Own"})(folder / "config.json")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    words = ["Which river?"] if command == "ask" else []
    run = subprocess.run(
        [sys.executable, "-m", "ragbook", command, *words, "--reader", str(folder)],
        input="y\ny\n", capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, "")
    assert "brings code of its own (auto_map in config.json)" in run.stderr.splitlines()[-1]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("seq2seq reader", "tokenizer.json"),
        ("FiD", "tokenizer.json"),
        ("RAG", "generator_tokenizer/tokenizer.json"),
        ("encoder", "tokenizer.json"),
        ("DPR", "dpr-ctx_encoder-tiny/tokenizer.json"),
        ("saved encoder", "tokenizer.json"),
        ("REALM's embedder", "vocab.txt"),
    ],
)
def test_a_sentencepiece_model_without_a_fast_tokenizer_is_refused_in_words(
    kind, file, good, tmp_path
):
    def renamed(path: Path) -> None:
        path.rename(path.parent / "spiece.model")

    folder = damaged(good(kind), tmp_path / "model", file, renamed)
    said = refusal(kind, folder)
    assert "has a SentencePiece model (spiece.model) and no fast tokenizer" in said
    assert "save_pretrained" in said


def test_shards_that_lead_out_of_the_folder_are_not_followed(good, tmp_path):
    folder = damaged(good("reader in pieces"), tmp_path / "model", "config.json", lambda _: None)
    shutil.copy(folder / "model-00001-of-00007.safetensors", tmp_path / "outside.safetensors")
    path = folder / "model.safetensors.index.json"
    said = json.loads(path.read_text())
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors"), "config.json"):
        path.unlink()
        path.write_text(json.dumps(said | {"weight_map": dict.fromkeys(said["weight_map"], name)}))
        sentence = refusal("reader in pieces", folder)
        assert repr(name) in sentence
        assert "no safetensors file in its folder" in sentence


def test_a_configuration_reserves_no_memory_that_the_files_do_not_hold(good, tmp_path):
    """Else two of these would be killed for the memory that they ask for, and one never end."""
    for key, value in (("n_embd", 2**22), ("vocab_size", 2**33), ("n_layer", 2**31)):
        folder = damaged(
            good("causal reader"), tmp_path / key / "m", "config.json", setting(key, value)
        )
        assert "config" in refusal("causal reader", folder)
    with pytest.raises(InputError, match="asks for num_hidden_layers = 5000"):
        check_counts("it", {"text_config": {"num_hidden_layers": 5000}}, 40)
    check_counts("it", {"text_config": {"num_hidden_layers": 80, "vocab_size": 10**6}}, 40)
    with pytest.raises(InputError, match="describes a model of 40,010,000 numbers"):
        check_size("it", {"a": ([10_000, 2], "F32")}, lambda: nn.Linear(4000, 10_000))
    check_size("it", {"a": ([4000, 10_000], "F32")}, lambda: nn.Linear(4000, 10_000))
    assert numbers_in({"a": ([3, 4], "F32"), "b": ([], "F32")}) == 13


def test_a_tokenizer_of_another_model_is_refused(good, tmp_path):
    """Its larger ids would be an error only when a text has them."""
    folder = tmp_path / "model"
    shutil.copytree(good("causal reader"), folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(good("DPR") / "dpr-ctx_encoder-tiny" / file, folder / file)
    assert "token ids up to 30521, and its model has 700 word embeddings" in refusal(
        "causal reader", folder
    )


@pytest.mark.parametrize(
    "content", [b"", b"{", NESTED.encode(), b'{"a": "\\ud800"}', b"\xff\xfe", b"[]", b"null"]
)
def test_settings_that_are_none(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json of it is damaged"):
        settings_of("it", path)


def test_a_header_is_not_believed(good, tmp_path):
    folder = damaged(
        good("encoder"), tmp_path / "m", "model.safetensors", header_changed(lambda _: b"[" * 90)
    )
    assert "is damaged (SafetensorError" in refusal("encoder", folder)


# --- what this package trained ------------------------------------------------------------------


def trained(folder: Path, **files: dict[str, torch.Tensor]) -> Path:
    """A folder with the given files and a manifest that says that they are right."""
    folder.mkdir(exist_ok=True)
    for name, tensors in files.items():
        save_file(tensors, str(folder / f"{name.replace('_', '-')}.safetensors"))
    bundled.write_manifest(folder)
    return folder


def test_files_of_a_reader_that_lack_tensors_are_refused(tmp_path):
    whole = bundled.tensors("span.safetensors")
    assert bundled.span_scorer(384, trained(tmp_path / "a", span=whole)).out.weight.shape == (
        1,
        128,
    )
    part = {name: value for name, value in whole.items() if name != "out.weight"}
    with pytest.raises(InputError, match=r"lack tensors of the model: out\.weight"):
        bundled.span_scorer(384, trained(tmp_path / "b", span=part))
    with pytest.raises(InputError, match=r"span\.safetensors holds no tensors"):
        bundled.span_scorer(384, trained(tmp_path / "c", span={}))
    short = trained(tmp_path / "d", span=whole | {"out.weight": torch.ones(1, 127)})
    with pytest.raises(InputError, match=r"no out\.weight of that shape"):
        bundled.span_scorer(384, short)
    infinite = trained(tmp_path / "e", span=whole | {"out.weight": whole["out.weight"] / 0})
    with pytest.raises(InputError, match=r"infinite or none: out\.weight"):
        bundled.span_scorer(384, infinite)


def test_a_decoder_or_language_model_is_whole_but_for_what_the_embedded_encoder_gives():
    model = bundled.new_reader_model()
    fill(model.decoder, bundled.tensors("decoder.safetensors"), bundled.OF_ENCODER)
    part = bundled.tensors("decoder.safetensors")
    name = min(name for name in part if "crossattention" in name)
    del part[name]
    with pytest.raises(InputError, match=f"lack tensors of the model: {name}"):
        fill(model.decoder, part, bundled.OF_ENCODER)


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"files": []}', '{"files": {"a": 3}}', '{"files": {"a": {}}}', "{", "3"],
)
def test_a_damaged_manifest_of_weights_is_refused(tmp_path, content):
    written(content.encode())(tmp_path / "weights.json")
    with pytest.raises(InputError, match=r"weights\.json.* is damaged"):
        look_up(str(tmp_path))


def test_changes_are_whole_and_fit():
    left, right = torch.ones(3, 2), torch.ones(2, 4)
    for stored in (
        {"weight.left": left},
        {"weight.right": right},
        {"weight.left": left, "weight.right": right.T},
        {"weight.left": left, "weight.right": right, "weight.change": left @ right},
        {"weight.left": left[0], "weight.right": right},
    ):
        linear = nn.Linear(4, 3)
        before = linear.weight.clone()
        with pytest.raises(InputError, match="the change of weight is neither whole nor two"):
            apply(linear, stored)
        assert torch.equal(linear.weight, before)
    with pytest.raises(InputError, match="infinite"):
        apply(nn.Linear(4, 3), {"weight.change": torch.full((3, 4), float("nan"))})
    assert not are_changes({})  # a file without tensors changes nothing, and is refused


def test_filling_says_what_is_missing():
    linear = nn.Linear(4, 3)
    with pytest.raises(InputError, match="lack tensors of the model: bias"):
        fill(linear, {"weight": torch.ones(3, 4)}, NONE)
    fill(linear, {"weight": torch.ones(3, 4)}, "bias")
    assert linear.weight.sum() == 12
