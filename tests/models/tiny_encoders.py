"""Small random encoders in the layouts of transformers and sentence-transformers, with a tokenizer
of MiniWiki's words; written to the disk, for tests that load them by name."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ragbook.corpus import Corpus, QuestionSet, miniwiki
from ragbook.models.model_files import quiet

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
HIDDEN, TOKENS = 16, 64
"""Length of a state, and the most tokens that are read: fewer than MiniWiki's passages have."""


def some_passages() -> Corpus:
    """50 passages of MiniWiki."""
    return Corpus("some", list(miniwiki.corpus())[:50])


def some_questions() -> QuestionSet:
    """10 questions of MiniWiki."""
    return miniwiki.questions("dev").head(10)


@cache
def tokenizer(max_length: int | None = TOKENS) -> Any:
    """Lower-cased words of the passages, [CLS] before and [SEP] behind them."""
    words = re.findall(r"\w+|[^\w\s]", " ".join(p.text for p in some_passages()).lower())
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *dict.fromkeys(words)])}
    fast = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    fast.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    fast.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    fast.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    limit = {} if max_length is None else {"model_max_length": max_length}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
        **limit,
    )


def model(kind: str, seed: int = 0, **settings: Any) -> Any:
    """A random model of a class of transformers, `BertModel` and the like."""
    shape: dict[str, Any] = {"vocab_size": len(tokenizer()), "pad_token_id": 0}
    if kind.startswith("DistilBert"):
        shape |= {"dim": HIDDEN, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    elif kind.startswith("GPT2"):
        shape |= {"n_embd": HIDDEN, "n_layer": 2, "n_head": 2, "eos_token_id": 3, "bos_token_id": 2}
    elif kind.startswith("T5"):
        shape |= {"d_model": HIDDEN, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
        shape |= {"decoder_start_token_id": 0}
    else:
        shape |= {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2}
        shape |= {"intermediate_size": 24}
    if not kind.startswith(("GPT2", "T5", "ViT")):
        # Large enough weights that states differ. RoBERTa counts places from 1 on, MPNet from 2.
        first = {"RobertaModel": 1, "MPNetModel": 2}.get(kind, 0)
        shape |= {"initializer_range": 0.3, "max_position_embeddings": TOKENS + first}
    if kind.startswith("ViT"):
        del shape["vocab_size"], shape["pad_token_id"]
    made = getattr(transformers, kind)
    torch.manual_seed(seed)
    return made(made.config_class(**shape, **settings)).eval()


def write_plain(folder: Path, kind: str, seed: int = 0, **settings: Any) -> Path:
    """The model and its tokenizer, as transformers saves them."""
    with quiet():
        model(kind, seed, **settings).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


def as_sentence_transformer(folder: Path, pooling: str = "mean", *modules: Any) -> Any:
    """sentence-transformers' own model of a plain folder."""
    with quiet():
        transformer = Transformer(str(folder))
        return SentenceTransformer(
            modules=[transformer, Pooling(HIDDEN, pooling), *modules],  # pyright: ignore[reportArgumentType]
            device="cpu",
        ).eval()


def write_sentence(
    folder: Path, pooling: str = "mean", *modules: Any, seed: int = 0, **settings: Any
) -> Any:
    """A BERT in the layout of sentence-transformers; what was written.

    Parameters
    ----------
    settings: attributes such as `prompts` and `similarity_fn_name`.
    """
    written = as_sentence_transformer(
        write_plain(folder.with_name(f"{folder.name}-plain"), "BertModel", seed), pooling, *modules
    )
    for name, value in settings.items():
        setattr(written, name, value)
    with quiet():
        written.save_pretrained(str(folder), create_model_card=False)
    return written


def dense(seed: int = 7, dimension: int = 12) -> Any:
    """A projection to fewer dimensions."""
    torch.manual_seed(seed)
    return Dense(HIDDEN, dimension)


def normalize() -> Any:
    """The module that scales vectors to length 1."""
    return Normalize()
