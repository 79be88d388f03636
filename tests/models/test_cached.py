"""What a model says through a cache, many prefixes and prompts at a time, against one plain pass.

The plain pass has one row, no padding, no cache and the model's own attention. Positions differ
from architecture to architecture: learned ones with an offset (BART, OPT), from the padding's
number on (RoBERTa), of sines (Pegasus), rotary (Llama), relative biases (T5), distances (BLOOM),
windows that slide (Mistral, Gemma). All weights are random, and large enough for each to matter.
"""

from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ragbook.errors import InputError
from ragbook.models import LanguageModel, SeqReader, load_language_model, load_reader
from ragbook.models.cached import check_reader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.lm import key_module

V, PAD, START, END = 300, 0, 3, 2
PLACES = 64


class NoTokenizer:
    """Tests here speak in numbers of tokens."""

    cls_token_id, sep_token_id, bos_token_id, eos_token_id = None, None, 1, END

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": []}


def close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


# Encoder-decoders

SPECIAL = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": END}
BART = SPECIAL | {
    "vocab_size": V,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": PLACES,
    "init_std": 0.3,
    "decoder_start_token_id": START,
}
T5 = SPECIAL | {
    "vocab_size": V,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": START,
}
BERT = SPECIAL | {
    "vocab_size": V,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": PLACES,
    "initializer_range": 0.3,
}
GEMMA = BERT | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "query_pre_attn_scalar": 8,
    "attn_logit_softcapping": 1.0,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention"],
}
READERS: dict[str, dict[str, Any]] = {
    "BartForConditionalGeneration": BART,
    "MBartForConditionalGeneration": BART,
    "PLBartForConditionalGeneration": BART,
    "PegasusForConditionalGeneration": BART,
    "PegasusXForConditionalGeneration": BART,
    "BigBirdPegasusForConditionalGeneration": BART | {"attention_type": "original_full"},
    "MarianMTModel": BART,
    "M2M100ForConditionalGeneration": BART,
    "BlenderbotForConditionalGeneration": BART,
    "BlenderbotSmallForConditionalGeneration": BART,
    "T5ForConditionalGeneration": T5,
    "MT5ForConditionalGeneration": T5 | {"feed_forward_proj": "gated-gelu"},
    "UMT5ForConditionalGeneration": T5,
    "LongT5ForConditionalGeneration": T5 | {"local_radius": 4},
    "T5GemmaForConditionalGeneration": {
        "encoder": GEMMA,
        "decoder": GEMMA,
        "vocab_size": V,
        "decoder_start_token_id": START,
        "eos_token_id": END,
    },
}
DECODERS = {
    "BertLMHeadModel": BERT,
    "BertGenerationDecoder": BERT,
    "RobertaForCausalLM": BERT | {"pad_token_id": 1, "bos_token_id": 0},
    "ElectraForCausalLM": BERT | {"embedding_size": 16},
    "GPT2LMHeadModel": SPECIAL
    | {"vocab_size": V, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": PLACES}
    | {"initializer_range": 0.3},
}


def made(kind: str, options: dict[str, Any]) -> Any:
    """A random model of this class, its relative biases of standard deviation 1."""
    torch.manual_seed(0)
    built = getattr(transformers, kind)
    model = built(built.config_class(**options)).eval()
    for name, weight in model.named_parameters():
        if "relative_attention_bias" in name:
            torch.nn.init.normal_(weight)
    return model


def reader_model(kind: str) -> Any:
    if kind in READERS:
        return made(kind, READERS[kind])
    decoder = made(kind, DECODERS[kind] | {"is_decoder": True, "add_cross_attention": True})
    encoder = made("BertModel", BERT)
    model = transformers.EncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
    model.config.decoder_start_token_id, model.config.eos_token_id = START, END
    return model


@pytest.mark.parametrize("kind", [*READERS, *DECODERS])
def test_a_reader_says_through_a_cache_what_it_says_without(kind):
    model = reader_model(kind)
    plain = deepcopy(model)
    plain.set_attn_implementation("eager")
    reader = SeqReader(model, NoTokenizer(), kind, opening=())
    lengths = (7, 4, 5)
    generator = torch.Generator().manual_seed(1)
    size = reader.pairs.encoder.config.hidden_size
    states = torch.randn(3, 7, size, generator=generator)
    mask = (torch.arange(7) < torch.tensor(lengths)[:, None]).long()
    memory = reader.memory(states, mask)

    @torch.no_grad()
    def alone(row: int, inputs: list[int]) -> Any:
        return plain(
            encoder_outputs=BaseModelOutput(states[row : row + 1, : lengths[row]]),
            attention_mask=torch.ones(1, lengths[row], dtype=torch.long),
            decoder_input_ids=torch.tensor([inputs]),
            use_cache=False,
            output_attentions=True,
        )

    # Token by token: beams change places, and one input is done before the others.
    following = reader.continuation(memory)
    rows, parents = torch.tensor([0, 0, 1, 1, 2, 2]), torch.arange(6)
    prefixes = torch.full((6, 1), START)
    for step in range(10):
        found = following(prefixes, rows, parents)
        for row, prefix, log_probs in zip(rows.tolist(), prefixes.tolist(), found, strict=True):
            close(log_probs, alone(row, prefix).logits[0, -1].log_softmax(-1))
        prefixes, rows, parents = grown(prefixes, rows, step == 5, generator)

    # Whole answers, some of them with the same beginning.
    labels = torch.randint(4, V, (6, 9), generator=generator)
    labels[1, :4] = labels[0, :4]
    labels[2, 6:] = labels[4, 3:] = -100
    own = torch.tensor([0, 0, 1, 2, 2, 2])
    scored = reader.token_log_probs(memory, labels, own)
    for row, label, found in zip(own.tolist(), labels.tolist(), scored, strict=True):
        ids = [token for token in label if token != -100]
        wanted = alone(row, [START, *ids[:-1]]).logits[0].log_softmax(-1)
        close(found[: len(ids)], wanted[torch.arange(len(ids)), ids])

    # Attention, and its scores before the softmax, which plain runs show up to a constant.
    attention = reader.cross_attention(memory, labels[[0, 2, 5]])
    first = reader.first_token_scores(memory)
    for row, label in enumerate(labels[[0, 2, 5]].tolist()):
        ids = [token for token in label if token != -100]
        weights = alone(row, [START, *ids[:-1]]).cross_attentions
        close(attention[row, : lengths[row]], weights[-1][0, :, :-1].mean((0, 1)))
        logs = torch.stack([layer[0, :, 0].log().mean(0) for layer in weights]).mean(0)
        scores = first[row, : lengths[row]]
        close(scores - scores.mean(), logs - logs.mean())


def grown(
    prefixes: Tensor, rows: Tensor, done: bool, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The next call of a continuation with two beams a row: each continues either of its row's; the
    first row may be done."""
    base = 2 if done else 0
    rows = rows[base:]
    turn = torch.randint(2, (len(rows),), generator=generator)
    parents = base + torch.arange(len(rows)) // 2 * 2 + turn
    words = torch.randint(4, V, (len(rows), 1), generator=generator)
    return torch.cat([prefixes[parents], words], dim=1), rows, parents


@pytest.mark.parametrize("kind", ["BartForConditionalGeneration", "T5ForConditionalGeneration"])
def test_a_reader_from_outside_is_read_both_ways_when_it_is_loaded(kind, tmp_path):
    tokenizer = minilm_tokenizer()
    made(kind, READERS[kind] | {"vocab_size": len(tokenizer)}).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_reader(str(tmp_path)).name == str(tmp_path)


def test_a_reader_that_counts_wrongly_is_refused():
    """T5 with a bias in cross-attention, which `transformers` 5 takes from the wrong positions."""
    model = reader_model("T5ForConditionalGeneration")
    attention = model.decoder.block[0].layer[1].EncDecAttention
    attention.has_relative_attention_bias = True
    attention.relative_attention_bias = torch.nn.Embedding(32, 2)
    reader = SeqReader(model, NoTokenizer(), "this T5", opening=())
    with pytest.raises(InputError, match=r"this T5 says other things .*\(up to \d+\.\d% of"):
        check_reader(reader)


def test_a_reader_that_does_not_fit_is_refused(tmp_path):
    options = BART | {"max_encoder_position_embeddings": 64, "attention_window": 8}
    led = made("LEDForConditionalGeneration", options)
    with pytest.raises(InputError, match="LEDDecoder has an attention of its own"):
        SeqReader(led, NoTokenizer(), "led", opening=())
    options = T5 | {"num_experts": 2, "vocab_size": len(minilm_tokenizer())}
    switch = made("SwitchTransformersForConditionalGeneration", options)
    switch.save_pretrained(tmp_path)
    minilm_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="cannot be read through a cache, token by token"):
        load_reader(str(tmp_path))
    t5 = made("T5ForConditionalGeneration", T5)
    t5.config.eos_token_id = t5.generation_config.eos_token_id = None
    with pytest.raises(InputError, match=r"has no eos_token_id; write it"):
        SeqReader(t5, NoTokenizer(), "t5", opening=())


# Language models

GPT2 = DECODERS["GPT2LMHeadModel"]
LLAMA = BERT | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
OPT = BERT | {"ffn_dim": 24, "word_embed_proj_dim": 16, "init_std": 0.3}
DECODER = BERT | {"is_decoder": True}
ROBERTA = DECODER | {"pad_token_id": 1, "bos_token_id": 0}
TWO_KINDS = {"layer_types": ["sliding_attention", "full_attention"]}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": GPT2,
    "GPTBigCodeForCausalLM": GPT2,  # one key and value head
    "GPTNeoForCausalLM": SPECIAL
    | {"vocab_size": V, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "window_size": 5}
    | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": PLACES}
    | {"initializer_range": 0.3},
    "GPTJForCausalLM": GPT2 | {"rotary_dim": 4},
    "GPTNeoXForCausalLM": BERT,
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA | {"sliding_window": 5},
    "MixtralForCausalLM": LLAMA | {"sliding_window": 5, "num_local_experts": 2},
    "Qwen2ForCausalLM": LLAMA
    | {"sliding_window": 5, "use_sliding_window": True, "max_window_layers": 1},
    "Qwen3ForCausalLM": LLAMA,
    "GemmaForCausalLM": LLAMA | {"head_dim": 8},
    "Gemma2ForCausalLM": GEMMA,
    "Gemma3ForCausalLM": GEMMA,
    "PhiForCausalLM": LLAMA,
    "Phi3ForCausalLM": LLAMA | {"sliding_window": 5},
    "OPTForCausalLM": OPT,
    "BloomForCausalLM": SPECIAL
    | {"vocab_size": V, "hidden_size": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3},
    "MptForCausalLM": {"vocab_size": V, "d_model": 16, "n_layers": 2, "n_heads": 2}
    | {"max_seq_len": PLACES, "initializer_range": 0.3},
    "FalconForCausalLM": BERT | {"alibi": False},
    "XGLMForCausalLM": SPECIAL
    | {"vocab_size": V, "d_model": 16, "num_layers": 2, "attention_heads": 2, "ffn_dim": 24}
    | {"max_position_embeddings": PLACES, "init_std": 0.3},
    "BertLMHeadModel": DECODER,
    "ElectraForCausalLM": DECODER | {"embedding_size": 16},
    "RoFormerForCausalLM": DECODER | {"embedding_size": 16},
    "RobertaForCausalLM": ROBERTA,
    "XLMRobertaForCausalLM": ROBERTA,
    "BartForCausalLM": BART,
    "MBartForCausalLM": BART,
    "PegasusForCausalLM": BART,
    "TrOCRForCausalLM": BART,  # gives all logits, whatever it is asked for
}


def language_model(kind: str) -> tuple[LanguageModel, Any]:
    """The model as the package reads it, and (keys [t, d], log p(next token) [t, V]) of a plain
    pass over the numbers of a text's tokens."""
    model = made(kind, LANGUAGE_MODELS[kind])
    plain, seen = deepcopy(model), {}
    plain.set_attn_implementation("eager")
    key_module(plain).register_forward_pre_hook(lambda _, given: seen.update(key=given[0]))

    @torch.no_grad()
    def alone(ids: list[int]) -> tuple[Tensor, Tensor]:
        logits = plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        return seen["key"].reshape(len(ids), -1), logits.log_softmax(-1)

    return LanguageModel(model, NoTokenizer(), kind), alone


def words(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(4, V, (count,), generator=generator).tolist()


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_language_model_says_through_a_cache_what_it_says_without(kind):
    lm, alone = language_model(kind)
    generator = torch.Generator().manual_seed(2)
    prompts = [words(n, generator) for n in (9, 3, 6, 3)]
    following = lm.after(prompts)
    rows, parents = torch.arange(4).repeat_interleave(2), torch.arange(8)
    prefixes = torch.full((8, 1), START)
    for step in range(8):
        keys, log_probs = following(prefixes, rows, parents)
        for at, row in enumerate(rows.tolist()):
            wanted = alone([*prompts[row], *prefixes[at, 1:].tolist()])
            close(keys[at], wanted[0][-1])
            close(log_probs[at], wanted[1][-1])
        prefixes, rows, parents = grown(prefixes, rows, step == 4, generator)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_padding_on_the_right_and_windows_change_no_key_and_no_probability(kind):
    lm, alone = language_model(kind)
    generator = torch.Generator().manual_seed(3)
    texts = [words(n, generator) for n in (20, 12, 5)]
    rows = [torch.tensor(text) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=lm.end)
    mask = (torch.arange(20) < torch.tensor([[20], [12], [5]])).long()
    keys, log_probs = lm.forward(ids, mask)
    for at, text in enumerate(texts):
        wanted = alone(text)
        close(keys[at, : len(text)], wanted[0])
        close(log_probs[at, : len(text)], wanted[1])
    close(lm.forward(ids[:1], last=3)[1][0], alone(texts[0])[1][-3:])
    long = words(150, generator)
    for text, found in zip([*texts, long], lm.keys([*texts, long]), strict=True):
        parts = [alone(window)[0][repeated:] for window, repeated in lm.windows(text)]
        close(found, torch.cat(parts))
    if {"max_position_embeddings", "n_positions", "max_seq_len"} & LANGUAGE_MODELS[kind].keys():
        assert len(lm.windows(long)) > 1


def test_language_models_that_cannot_be_read_so_are_refused(tmp_path):
    for name, kind, options in (
        ("gpt", "OpenAIGPTLMHeadModel", GPT2),  # it keeps no cache
        ("lfm", "Lfm2ForCausalLM", LLAMA | {"layer_types": ["conv", "full_attention"]}),
        ("bert", "BertLMHeadModel", BERT),
        ("llama", "LlamaForCausalLM", LLAMA),
    ):
        words = {"vocab_size": len(minilm_tokenizer())}
        made(kind, options | words).save_pretrained(tmp_path / name)
        minilm_tokenizer().save_pretrained(tmp_path / name)
    for name in ("gpt", "lfm"):
        lm = load_language_model(str(tmp_path / name))
        assert len(lm.keys([[5, 6, 7]])[0]) == 3  # a plain pass is right
        with pytest.raises(InputError, match=f"{name} cannot be read through a cache"):
            lm.after([[5]])
    with pytest.raises(InputError, match="looks at the words to come"):
        load_language_model(str(tmp_path / "bert"))
    assert load_language_model(str(tmp_path / "llama")).after([[5]])
