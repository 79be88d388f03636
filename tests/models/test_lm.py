"""Keys of kNN-LM over the architectures of `transformers`, against the norms' own outputs."""

import itertools

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.index.datastore import build_datastore
from ragbook.models import LanguageModel, load_language_model
from ragbook.models.embedded import minilm_path

SMALL = {
    "vocab_size": 30522,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT = {"vocab_size": 30522, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
BART = {
    "vocab_size": 30522,
    "d_model": 16,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
}
ARCHITECTURES = {
    "GPT2": (GPT, "transformer.h.1.ln_2"),
    "GPTBigCode": (GPT, "transformer.h.1.ln_2"),
    "GPTNeo": (
        {
            "vocab_size": 30522,
            "hidden_size": 16,
            "num_layers": 2,
            "num_heads": 2,
            "attention_types": [[["global"], 2]],
            "max_position_embeddings": 64,
        },
        "transformer.h.1.ln_2",
    ),
    "GPTJ": (GPT | {"rotary_dim": 4}, "transformer.h.1.ln_1"),
    "GPTNeoX": (SMALL, "gpt_neox.layers.1.post_attention_layernorm"),
    "Llama": (SMALL, "model.layers.1.post_attention_layernorm"),
    "Mistral": (SMALL, "model.layers.1.post_attention_layernorm"),
    "Qwen2": (SMALL, "model.layers.1.post_attention_layernorm"),
    "Phi": (SMALL, "model.layers.1.input_layernorm"),
    "Gemma2": (
        SMALL | {"head_dim": 8, "query_pre_attn_scalar": 8},
        "model.layers.1.pre_feedforward_layernorm",
    ),
    "Bloom": (
        {"vocab_size": 30522, "hidden_size": 16, "n_layer": 2, "n_head": 2},
        "transformer.h.1.post_attention_layernorm",
    ),
    "Mpt": (
        {"vocab_size": 30522, "d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
        "transformer.blocks.1.norm_2",
    ),
    "OPT": (
        SMALL | {"ffn_dim": 24, "word_embed_proj_dim": 16, "pad_token_id": 0},
        "model.decoder.layers.1.final_layer_norm",
    ),
    "Bart": (BART, "model.decoder.layers.1.self_attn_layer_norm"),
    "BertLMHead": (SMALL | {"is_decoder": True}, "bert.encoder.layer.1.attention.output"),
}
PASSAGES = [
    Passage("p0", "Danube", "The Danube passes through Vienna and Budapest."),
    Passage("p1", "Elbe", "Dresden and Hamburg lie on the Elbe."),
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(str(minilm_path()))


def language_model(name: str, tokenizer) -> LanguageModel:
    options, _ = ARCHITECTURES[name]
    torch.manual_seed(0)
    family = "Bert" if name == "BertLMHead" else name
    config = getattr(transformers, f"{family}Config")(**options)
    kind = f"{name}Model" if name == "BertLMHead" else f"{name}ForCausalLM"
    kind = getattr(transformers, kind, None) or getattr(transformers, f"{name}LMHeadModel")
    return LanguageModel(kind(config), tokenizer, name)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_keys_are_the_output_of_the_norm_before_the_last_feed_forward_network(name, tokenizer):
    """Of each passage alone, by a hook of the test's own and through the whole model."""
    lm = language_model(name, tokenizer)
    together = lm.key_values(PASSAGES)  # of different lengths, padded
    seen = {}
    norm = lm.model.get_submodule(ARCHITECTURES[name][1])
    norm.register_forward_hook(lambda _m, _i, out: seen.update(key=out))
    for passage, (keys, values) in zip(PASSAGES, together, strict=True):
        ids = torch.tensor([lm.passage_ids(passage)])
        with torch.no_grad():
            lm.model(input_ids=ids, use_cache=False)
        expected = seen["key"].reshape(*ids.shape, -1)[0, :-1]
        torch.testing.assert_close(keys, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(lm.forward(ids)[0][0, :-1], keys, rtol=1e-4, atol=1e-4)
        assert values.tolist() == ids[0, 1:].tolist()


@pytest.mark.parametrize("name", ["GPT2", "Llama", "OPT"])
def test_a_datastore_holds_them_in_half_precision(name, tokenizer, tmp_path):
    """Through the whole build: keys of the norm's output, next tokens, and whose they are."""
    lm = language_model(name, tokenizer)
    built = build_datastore(Corpus("two", PASSAGES), tmp_path / name, lm, progress=False)
    seen, at = {}, 0
    norm = lm.model.get_submodule(ARCHITECTURES[name][1])
    norm.register_forward_hook(lambda _m, _i, out: seen.update(key=out))
    for number, passage in enumerate(PASSAGES):
        ids = torch.tensor([lm.passage_ids(passage)])
        with torch.no_grad():
            lm.model(input_ids=ids, use_cache=False)
        rows = slice(at, at := at + ids.shape[1] - 1)
        expected = seen["key"].reshape(*ids.shape, -1)[0, :-1].numpy()
        np.testing.assert_allclose(built.keys[rows], expected, rtol=2e-3, atol=2e-3)
        assert built.values[rows].tolist() == ids[0, 1:].tolist()
        assert set(built.passage_of(np.arange(rows.start, rows.stop))) == {number}
    assert len(built) == at
    assert (built.keys.dtype, built.values.dtype) == (np.float16, np.int32)


def test_opt_with_its_norms_after_the_networks(tokenizer):
    """OPT-350m's layout: what comes into the last network has been through attention's norm, and
    the embeddings are narrower than the states."""
    options = ARCHITECTURES["OPT"][0] | {"do_layer_norm_before": False, "word_embed_proj_dim": 8}
    torch.manual_seed(0)
    model = transformers.OPTForCausalLM(transformers.OPTConfig(**options))
    lm, seen = LanguageModel(model, tokenizer, "OPT"), {}
    norm = model.get_submodule("model.decoder.layers.1.self_attn_layer_norm")
    norm.register_forward_hook(lambda _m, _i, out: seen.update(key=out))
    ids = torch.tensor([lm.passage_ids(PASSAGES[0])])
    keys, _ = lm.forward(ids)
    assert keys.shape[-1] == lm.dimension == 16
    torch.testing.assert_close(keys, seen["key"].reshape(*ids.shape, -1))


def test_a_model_without_feed_forward_blocks_is_refused(tokenizer):
    model = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=30522, hidden_size=16, num_hidden_layers=1)
    )
    with pytest.raises(InputError, match="Mamba"):
        LanguageModel(model, tokenizer, "mamba")


@pytest.mark.parametrize("length", [1, 63, 64, 65, 95, 96, 97, 200])
def test_windows_give_every_token_one_key_with_context(length, tokenizer):
    lm = language_model("GPT2", tokenizer)
    ids = [lm.start, *range(1000, 1000 + length - 1)]
    own = []
    for window, repeated in lm.windows(ids):
        assert len(window) <= lm.window == 64
        assert window[0] == lm.start
        assert not own or repeated == 33  # the opening token and 32 of the text
        assert not own or window[1:repeated] == own[-32:]
        own += window[repeated:]
    assert own == ids


def test_a_long_text_is_read_in_windows(tokenizer):
    """Every key is the one of its own window, read alone."""
    lm = language_model("GPT2", tokenizer)
    ids = [lm.start, *torch.randint(1000, 30000, (150,), generator=torch.manual_seed(1)).tolist()]
    (keys,) = lm.keys([ids])
    alone = [
        lm.forward(torch.tensor([window]))[0][0, repeated:] for window, repeated in lm.windows(ids)
    ]
    assert len(alone) > 2
    torch.testing.assert_close(keys, torch.cat(alone), rtol=1e-4, atol=1e-4)


def test_the_order_and_the_company_of_texts_do_not_matter(tokenizer, monkeypatch):
    lm = language_model("Llama", tokenizer)
    monkeypatch.setattr("ragbook.models.lm.BATCH_TOKENS", 40)
    texts = lm.texts(PASSAGES)
    alone = [lm.keys([text])[0] for text in texts]
    for order in itertools.permutations(range(2)):
        for at, keys in zip(order, lm.keys([texts[at] for at in order]), strict=True):
            torch.testing.assert_close(keys, alone[at], rtol=1e-4, atol=1e-4)


def test_the_whole_model_still_runs_after_keys(tokenizer):
    lm = language_model("GPT2", tokenizer)
    ids = torch.tensor([lm.passage_ids(PASSAGES[0])])
    before = lm.forward(ids)[1]
    lm.keys(ids.tolist())
    assert torch.equal(lm.forward(ids)[1], before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_keys_are_the_same(tokenizer):
    lm = language_model("GPT2", tokenizer)
    texts = lm.texts(PASSAGES)
    ids = torch.tensor([texts[0]])
    here, own = lm.keys(texts), lm.forward(ids)
    lm.model.to("cuda")
    for mine, theirs in zip(lm.keys(texts), here, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(lm.forward(ids), own, rtol=1e-2, atol=1e-2)


def test_all_that_a_model_reads_is_sent_to_its_device(tokenizer, monkeypatch):
    """A model on the device "meta" runs on shapes alone; what it is given must be there too."""
    lm = language_model("GPT2", tokenizer)
    lm.model.to("meta").set_attn_implementation("eager")
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor)
    # It looks at values, to find texts packed into one row; here are none.
    packed = "transformers.masking_utils.find_packed_sequence_indices"
    monkeypatch.setattr(packed, lambda position_ids: None)
    ids = torch.tensor([lm.passage_ids(PASSAGES[0])])
    keys, log_probs = lm.forward(ids, torch.ones_like(ids))
    assert (keys.device.type, keys.shape[:2]) == ("meta", ids.shape)
    assert log_probs.shape == (*ids.shape, 30522)
    assert [len(key) for key in lm.keys(ids.tolist())] == [ids.shape[1]]
    following = lm.key_continuation(["Where is it?"])
    rows = torch.tensor([0])
    for prefix in ([[5]], [[5, 6]]):
        assert following(torch.tensor(prefix), rows, rows)[1].shape == (1, 30522)


def test_the_fingerprint_is_of_the_weights(tokenizer):
    first, again = (language_model("GPT2", tokenizer) for _ in range(2))
    assert first.sha256 == again.sha256
    with torch.no_grad():
        again.model.transformer.h[0].ln_1.weight[0] += 1e-6
    changed = LanguageModel(again.model, tokenizer, "GPT2")
    assert changed.sha256 != first.sha256


def test_texts_are_whole_where_a_prompt_is_cut():
    lm = load_language_model()
    long = Passage("y", "Long", "word " * 400)
    assert len(lm.texts([long])[0]) > len(lm.passage_ids(long))
    assert lm.key_values([]) == []
    assert lm.texts(PASSAGES) == [lm.passage_ids(p) for p in PASSAGES]
