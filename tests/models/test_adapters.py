"""Adapters added to the weights say what peft's own layers say, and damaged ones are refused."""

import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from ragbook.errors import InputError
from ragbook.models import load_language_model, load_reader
from ragbook.models.adapters import CONFIG, FACTORS, PROMPT, RECORDS, write_records
from ragbook.models.inspection import inspect_generator
from tests.checkpoints import random_model, write_checkpoint

IDS = torch.tensor([[1, 40, 41, 300, 17, 5, 5, 90]])


def write_adapter(folder, base, name, **settings):
    """An adapter with random factors as peft writes it, and the logits of the model with it."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", **settings)
    model = peft.get_peft_model(random_model(name), config)
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    said = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**said, "base_model_name_or_path": str(base)}))
    inputs = {"decoder_input_ids": IDS[:, :3]} if name in ("t5", "bart") else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **inputs).logits


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("llama", {}),
        ("gpt2", {"fan_in_fan_out": True}),
        ("qwen2", {"use_rslora": True}),
        ("opt", {}),
    ],
)
def test_a_causal_model_with_an_adapter_is_peft_s(tmp_path, name, settings):
    base = write_checkpoint(tmp_path / "base", name)
    want = write_adapter(tmp_path / "own", base, name, **settings)
    for made in (load_reader(str(tmp_path / "own")), load_language_model(str(tmp_path / "own"))):
        with torch.no_grad():
            torch.testing.assert_close(made.model(input_ids=IDS).logits, want, atol=2e-4, rtol=1e-4)
        assert made.name == str(tmp_path / "own")
    with torch.no_grad():
        before = load_reader(str(base)).model(input_ids=IDS).logits
    assert (before - want).abs().max() > 1


def test_a_seq2seq_model_with_an_adapter_is_peft_s(tmp_path):
    base = write_checkpoint(tmp_path / "base", "t5")
    want = write_adapter(tmp_path / "own", base, "t5")
    model = load_reader(str(tmp_path / "own")).model
    with torch.no_grad():
        got = model(input_ids=IDS, decoder_input_ids=IDS[:, :3]).logits
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)


@pytest.fixture
def adapter(tmp_path):
    base = write_checkpoint(tmp_path / "base", "llama")
    write_adapter(tmp_path / "own", base, "llama")
    return tmp_path / "own"


def test_its_prompt_is_the_one_beside_it(adapter):
    (adapter / PROMPT).write_text(json.dumps({"instruction": "Read.\n\n"}))
    reader = load_reader(str(adapter))
    assert reader.prompt.template.instruction == "Read.\n\n"
    assert load_reader(str(adapter.parent / "base")).prompt.template.instruction == ""


def change_settings(folder, **settings):
    said = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**said, **settings}))


def change_factors(folder, change):
    tensors = load_file(str(folder / FACTORS))
    change(tensors)
    save_file(tensors, str(folder / FACTORS), {"format": "pt"})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_model_name_or_path": None}, "does not name its base model"),
        ({"base_model_name_or_path": "nowhere/at-all"}, "there is no model 'nowhere/at-all'"),
        ({"peft_type": "IA3"}, "no plain LoRA .peft_type IA3"),
        ({"use_dora": True}, "no plain LoRA .use_dora"),
        ({"bias": "all"}, "no plain LoRA"),
        ({"megatron_core": "os", "megatron_config": {"a": 1}}, "no plain LoRA .megatron_config"),
        ({"init_lora_weights": "pissa"}, "no plain LoRA .init_lora_weights"),
        ({"alora_invocation_tokens": [3]}, "no plain LoRA .alora_invocation_tokens"),
        ({"lora_alpha": "5"}, "no number as its lora_alpha"),
        ({"lora_alpha": 10**400}, "no number as its lora_alpha"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "code of its own"),
    ],
)
def test_other_settings_are_refused(adapter, settings, said):
    change_settings(adapter, **settings)
    with pytest.raises(InputError, match=said):
        load_reader(str(adapter))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(min(t)), "lacks tensors of its adapter"),
        (lambda t: t.update({k.replace("q_proj", "x_proj"): t.pop(k) for k in list(t)}), "x_proj"),
        (lambda t: t.update({min(t): torch.ones(3)}), "no factor of a linear layer"),
        (lambda t: t.update({min(t): torch.ones(3, 7)}), "do not fit the model"),
        (lambda t: t.update({min(t): torch.full_like(t[min(t)], float("nan"))}), "infinite"),
        (lambda t: t.update({"base_model.model.lm_head.weight": torch.ones(2, 2)}), "no factor"),
        (lambda t: t.clear(), "no tensors"),
    ],
)
def test_other_factors_are_refused(adapter, change, said):
    change_factors(adapter, change)
    with pytest.raises(InputError, match=said):
        load_reader(str(adapter))


def test_an_adapter_without_factors_is_refused(adapter):
    (adapter / FACTORS).unlink()
    with pytest.raises(InputError, match=f"has no {FACTORS}"):
        load_reader(str(adapter))


def test_an_adapter_of_an_adapter_is_refused(adapter, tmp_path):
    write_adapter(tmp_path / "second", adapter, "llama")
    with pytest.raises(InputError, match="an adapter of another one"):
        load_reader(str(tmp_path / "second"))


def test_a_file_that_is_not_the_listed_one_is_refused(adapter):
    write_records(adapter)
    assert set(json.loads((adapter / RECORDS).read_text())) == {CONFIG, FACTORS}
    inspect_generator(str(adapter))
    change_factors(adapter, lambda t: t.update({min(t): t[min(t)] + 0.01}))
    with pytest.raises(InputError, match=f"not the one that {RECORDS} lists"):
        load_reader(str(adapter))


@pytest.mark.parametrize("other", ["../base/model.safetensors", "/dev/zero", "nothing.json"])
def test_a_list_of_other_files_is_refused_and_not_followed(adapter, other):
    write_records(adapter)
    listed = json.loads((adapter / RECORDS).read_text())
    listed[other] = {"sha256": "0" * 64, "bytes": 1}
    (adapter / RECORDS).write_text(json.dumps(listed))
    with pytest.raises(InputError, match=f"not the one that {RECORDS} lists"):
        load_reader(str(adapter))
    (adapter / RECORDS).write_text("{}")
    with pytest.raises(InputError, match=f"not the one that {RECORDS} lists"):
        load_reader(str(adapter))
