"""Small random checkpoints of each layout, with tokenizers made on the spot."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MBartConfig,
    MistralConfig,
    OPTConfig,
    PegasusConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
)

from ragbook.corpus import miniwiki

VOCABULARY = 700
PAD, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = [PAD, START, END, UNKNOWN]
CHATML = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>'"
    " + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)


@cache
def _texts() -> tuple[str, ...]:
    return tuple(p.text for p in list(miniwiki.corpus())[:150])


@cache
def _trained(kind: str) -> str:
    """A tokenizer as JSON: `bytes` (GPT-2's), `metaspace` (Llama's), `unigram` (T5's)."""
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=VOCABULARY, special_tokens=SPECIAL, unk_token=UNKNOWN
        )
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if kind == "bytes" else [],
        )
    if kind == "bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator([*_texts(), "\n\n", "\n"], trainer)
    return tokenizer.to_str()


def new_tokenizer(
    kind: str = "bytes", before: str = "", after: str = "", chat: bool = False
) -> PreTrainedTokenizerFast:
    """A fast tokenizer that puts special tokens before and after a text, or none."""
    tokenizer = Tokenizer.from_str(_trained(kind))
    if before or after:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (before, "$A", after))),
            pair=" ".join(filter(None, (before, "$A", after, "$B", after))),
            special_tokens=[(token, SPECIAL.index(token)) for token in {before, after} - {""}],
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
    )
    if chat:
        made.chat_template = CHATML
    return made


_SIZE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED: dict[str, Any] = _SIZE | {"num_key_value_heads": 2}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
_BART: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": 2,
}
_PEGASUS: dict[str, Any] = _BART | {"static_position_embeddings": True}
_FLAN: dict[str, Any] = _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
CAUSAL: dict[str, Any] = {
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=2048,
        bos_token_id=2,
        eos_token_id=2,
    ),
    "opt": lambda: OPTConfig(**_SIZE, ffn_dim=64, word_embed_proj_dim=32),
    "gpt-neox": lambda: GPTNeoXConfig(**_SIZE),
    "llama": lambda: LlamaConfig(**_GROUPED),
    "qwen2": lambda: Qwen2Config(**_GROUPED),
    "qwen2-window": lambda: Qwen2Config(
        **_GROUPED, use_sliding_window=True, sliding_window=24, max_window_layers=1
    ),
    "mistral": lambda: MistralConfig(**_GROUPED, sliding_window=None),
    "mistral-window": lambda: MistralConfig(**_GROUPED, sliding_window=24),
    "gemma": lambda: GemmaConfig(**_GROUPED, head_dim=8),
    "gemma2-window": lambda: Gemma2Config(**_GROUPED, head_dim=8, sliding_window=24),
}
SEQ2SEQ: dict[str, Any] = {
    "t5": lambda: T5Config(**_T5),
    "flan-t5": lambda: T5Config(**_FLAN),
    "bart": lambda: BartConfig(**_BART),
    "pegasus": lambda: PegasusConfig(**_PEGASUS),
    "mbart": lambda: MBartConfig(**_BART),
}
TOKENIZERS = {
    "gpt2": ("bytes", "", ""),
    "opt": ("bytes", END, ""),
    "gpt-neox": ("bytes", "", ""),
    "qwen2": ("bytes", "", ""),
    "qwen2-window": ("bytes", "", ""),
    "bart": ("bytes", START, END),
    "mbart": ("unigram", "", END),
    "t5": ("unigram", "", END),
    "flan-t5": ("unigram", "", END),
    "pegasus": ("unigram", "", END),
}


def random_model(name: str, seed: int = 0) -> Any:
    """A random model of a layout, with weights so large that what it says depends on its input."""
    torch.manual_seed(seed)
    if name in CAUSAL:
        model = AutoModelForCausalLM.from_config(CAUSAL[name]())
    else:
        model = AutoModelForSeq2SeqLM.from_config(SEQ2SEQ[name]())
    for parameter_name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed_positions" not in parameter_name:
            torch.nn.init.normal_(parameter, std=0.25)
    return model.eval()


def tokenizer_of(name: str, chat: bool = False) -> PreTrainedTokenizerFast:
    """The kind of tokenizer that models of a layout come with."""
    return new_tokenizer(*TOKENIZERS.get(name, ("metaspace", START, "")), chat=chat)


def write_checkpoint(folder: Path, name: str, chat: bool = False) -> Path:
    """A checkpoint as `save_pretrained` writes it."""
    random_model(name).save_pretrained(folder)
    tokenizer_of(name, chat).save_pretrained(folder)
    return folder
