"""Where and how precisely: the choices, and that a model is the same one where it is placed."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ragbook.errors import InputError
from ragbook.models import LanguageModel, load_reader
from ragbook.models.devices import (
    choose_device,
    choose_precision,
    device_of,
    is_quick,
    least_precise,
    name_of,
    place,
    placed_copy,
    products_in,
    warning,
)
from ragbook.models.embedded import minilm_tokenizer
from tests.devices import pretended_gpu

CPU, CUDA, MPS = map(torch.device, ("cpu", "cuda", "mps"))


@pytest.fixture
def machine(monkeypatch):
    """Sets what the machine has."""

    def has(cuda: int = 0, mps: bool = False, bfloat16: bool | None = False, ampere: bool = True):
        monkeypatch.setattr("torch.cuda.is_available", lambda: cuda > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: cuda)
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: ampere)
        monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
        monkeypatch.setattr("ragbook.models.devices.multiplies_bfloat16", lambda: bfloat16)

    return has


def test_the_device(machine):
    for has, auto in (({}, "cpu"), ({"cuda": 2}, "cuda"), ({"mps": True}, "mps")):
        machine(**has)
        assert choose_device() == choose_device("auto") == torch.device(auto)
        assert choose_device("cpu") == CPU
    machine(cuda=2)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    for name in ("cuda:2", "cuda:", "cuda:-1", "cuda:x", "mps", "meta", "", "CUDA"):
        with pytest.raises(InputError, match=r"choose auto or cpu, cuda$"):
            choose_device(name)
    machine()
    with pytest.raises(InputError, match=r"no device 'cuda'; choose auto or cpu$"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("has", "device", "quick"),
    [
        ({"bfloat16": True}, CPU, {"bfloat16"}),
        ({"bfloat16": False}, CPU, set()),
        ({"bfloat16": None}, CPU, set()),
        ({"ampere": True}, CUDA, {"bfloat16", "float16"}),
        ({"ampere": False, "bfloat16": True}, CUDA, {"float16"}),
        ({"bfloat16": True}, MPS, {"float16"}),
    ],
)
def test_the_precision(has, device, quick, machine):
    """`auto` is never slow, and what is asked for by name is done; a slow one is told."""
    machine(**has)
    for name in ("float32", "bfloat16", "float16"):
        dtype = choose_precision(name, device)
        assert name_of(dtype) == name
        assert is_quick(dtype, device) == (name in quick | {"float32"})
        told = warning(dtype, device)
        assert (told is None) == is_quick(dtype, device)
        assert told is None or (told.startswith(f"{name} is slow") and "--precision auto" in told)
    auto = choose_precision("auto", device)
    assert auto == (torch.bfloat16 if "bfloat16" in quick else torch.float32)
    with pytest.raises(InputError, match="no precision 'float64'"):
        choose_precision("float64", device)


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=200,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def test_rounded_weights_have_exact_positions():
    """A model in bfloat16 is the float32 one with its weights rounded, thousands of tokens on."""
    exact, placed = llama(), place(llama(), precision="bfloat16")
    assert {p.dtype for p in placed.parameters()} == {torch.bfloat16}
    assert least_precise(placed.parameters()) == torch.bfloat16
    frequencies = placed.model.rotary_emb.inv_freq
    assert torch.equal(frequencies, exact.model.rotary_emb.inv_freq)
    assert not torch.equal(frequencies, frequencies.bfloat16().float())  # it would be rounded
    assert place(placed).lm_head.weight.dtype == torch.float32
    ids = torch.randint(0, 200, (1, 2500), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.copy_(parameter.bfloat16())
        torch.testing.assert_close(placed(ids).logits, exact(ids).logits)


def test_a_placed_copy_leaves_the_first_as_it_is():
    lm = LanguageModel(llama(), minilm_tokenizer(), "llama")
    before, ids = lm.sha256, torch.tensor([[5, 6, 7]])
    here = lm.forward(ids)
    rounded = placed_copy(lm, [lm.model], "cpu", "bfloat16")
    assert (rounded.precision, lm.precision) == ("bfloat16", "float32")
    assert rounded.sha256 == before  # the model that it was
    keys = rounded.forward(ids)[0]
    assert 0 < (keys - here[0]).abs().max() < 0.1
    assert torch.equal(lm.forward(ids)[1], here[1])  # and its own hook sees its own keys
    assert torch.equal(lm.forward(ids)[0], here[0])
    same = placed_copy(lm, [lm.model], "cpu")
    assert same.model.lm_head.weight.data_ptr() == lm.model.lm_head.weight.data_ptr()
    with pretended_gpu() as gpu:
        there = placed_copy(lm, [lm.model], "cuda")
        assert {t.device for t in (*there.model.parameters(), *there.model.buffers())} == {gpu}
        torch.testing.assert_close(there.forward(ids)[1], here[1])
        assert device_of(lm.model) == CPU


def test_a_reader_is_copied_with_the_encoder_of_its_pairs():
    reader = load_reader(method="fid")
    with pretended_gpu() as gpu:
        there = placed_copy(reader, [reader.model, reader.pairs.encoder], "cuda")
        parts = (there.model, there.pairs.encoder)
        assert {t.device for m in parts for t in (*m.parameters(), *m.buffers())} == {gpu}
        words = there.model.get_encoder().embeddings.word_embeddings.weight
        assert there.pairs.encoder.embeddings.word_embeddings.weight is words  # still shared
        assert there.model.decoder.cls.predictions.decoder.weight is words
    assert device_of(reader.model) == CPU


def test_products_alone_are_rounded():
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 64), torch.randn(3, 64)
    exact = layer(x)
    for dtype in (torch.bfloat16, torch.float16):
        with products_in(dtype, CPU):
            rounded = layer(x)
            with products_in(torch.float32, CPU):
                assert torch.equal(layer(x), exact)
        assert rounded.dtype == dtype
        torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)
    with products_in(torch.float32, CPU):
        assert torch.equal(layer(x), exact)


def test_the_least_precise_of_several():
    one, other = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    assert least_precise([one]) == torch.float32
    assert least_precise([one, other, one]) == torch.bfloat16
    with pytest.raises(ValueError, match="empty"):
        least_precise([])
