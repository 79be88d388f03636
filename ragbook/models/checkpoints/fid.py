"""FiD checkpoints as facebookresearch/FiD saves them: a T5 whose encoder is wrapped.

The wrapper changes only the tensors' names: `encoder.encoder.block.0.module.layer...` is T5's
`encoder.block.0.layer...`. Checkpoints saved after unwrapping the encoder have plain T5 names and
load too.

The original checkpoints come from `transformers` 3.0, which differs from today's in three ways.
They are recognised by the first, a relative position bias in the decoder's cross-attention:

* This bias is computed in the first layer, by T5's rule for a decoder, and added in all layers: for
  the answer's token i and the input's token j the distance is max(i - j, 0). So it differs only for
  the first tokens of the first passage, as many as the answer has so far, and has one value for all
  others. It was trained, so it is kept. Today's T5 counts i from the wrong position when it uses a
  cache; `add_cross_bias` counts it correctly.
* Every passage was padded to the same number of tokens, and j counts this padding. Here the keys do
  not include the padding, so their original positions are computed (`places`).
* Inputs had no end token.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ragbook.errors import InputError
from ragbook.models.cached import first_logits
from ragbook.models.inspection import refuse_code
from ragbook.models.model_files import (
    a_few,
    check_counts,
    check_folder,
    check_numbers,
    check_size,
    read_tokenizer,
    refusing,
    settings_of,
    tensors_in,
    tried,
)
from ragbook.models.prompts import FidLayout
from ragbook.models.seq2seq import SeqReader

CONFIG, TENSORS, PICKLED = "config.json", "model.safetensors", "pytorch_model.bin"
TOKENIZERS = ("tokenizer.json", "spiece.model")
WRAPPED = "encoder.encoder."
CROSS_BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def load_fid(name: str) -> SeqReader:
    """A FiD checkpoint's reader, whose inputs are "question: ... title: ... context: ...".

    Parameters
    ----------
    name: a local folder with config.json, model.safetensors and the tokenizer (the original
        checkpoints come without one: theirs is T5's).

    Raises
    ------
    InputError: a file is missing, the weights are a pickle, or they are not those of a T5.
    """
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        raise InputError(f"there is no FiD checkpoint at {name!r}: it has no {CONFIG}")
    if not (folder / TENSORS).is_file():
        if (folder / PICKLED).is_file():
            raise InputError(
                f"{folder / PICKLED} is a pickle, which can run code and is not read; if you trust "
                f"it, read it once with torch.load (weights_only=True) and write its tensors as "
                f"{TENSORS} with safetensors.torch.save_file, each one cloned"
            )
        raise InputError(f"there is no FiD checkpoint at {name!r}: it has no {TENSORS}")
    check_folder(name, folder)
    refuse_code(name, folder)
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise InputError(
            f"{name} has no tokenizer; save T5's there, for instance with "
            f"AutoTokenizer.from_pretrained('t5-base').save_pretrained({name!r})"
        )
    model, bias = _model(name, folder)
    layout = FidLayout(special=bias is None)
    if bias is not None:
        add_cross_bias(model, bias, layout.max_input)
    tokenizer = read_tokenizer(name, folder, model.config.vocab_size)
    reader = SeqReader(model, tokenizer, name, layout, opening=())
    tried(name, lambda: first_logits(reader))
    return reader


def is_fid(name: str) -> bool:
    """Whether `name` is a folder with a FiD checkpoint, by its configuration or tensors' names."""
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        return False
    try:
        config = settings_of(name, folder / CONFIG)
        said = config.get("architectures")
        if isinstance(said, list) and "FiDT5" in said:
            return True
        with safe_open(str(folder / TENSORS), framework="pt") as file:
            # An EncoderDecoderModel of two BERTs has an `encoder.encoder.layer`.
            return any(key.startswith(f"{WRAPPED}block.") for key in list(file.keys()))
    except (OSError, SafetensorError, InputError):  # whoever loads it says what is wrong
        return False


def unwrapped(key: str) -> str:
    """The name in a plain T5 of a tensor of the wrapped one."""
    if not key.startswith(WRAPPED):
        return key
    inner = key.removeprefix(WRAPPED)
    return "encoder." + re.sub(r"^(block\.\d+)\.module\.", r"\1.", inner)


def places(owner: Tensor, real: Tensor, padded: int) -> Tensor:
    """The positions that packed keys would have if each passage were padded to `padded` tokens.

    Parameters
    ----------
    owner: int64 [S, L], the passage of each key, -1 on padding; the keys of a passage follow each
        other, from its first token on.
    real: bool [S, L], whether a key is used. A passage without any used key is left out, and the
        passages after it move forward.
    padded: at least as many tokens as any passage has.

    Returns
    -------
    int64 [S, L], counted from 0; without meaning where a key is not used.
    """
    at = torch.arange(owner.shape[1], device=owner.device).expand_as(owner)
    opens = owner.diff(dim=1, prepend=torch.full_like(owner[:, :1], -1)) != 0
    within = at - (at * opens).cummax(1).values
    return ((opens & real).cumsum(1) - 1) * padded + within


def add_cross_bias(model: Any, weight: Tensor, padded: int) -> None:
    """Give a T5 the relative bias in cross-attention that it has in `transformers` 3.

    Parameters
    ----------
    model: a `T5ForConditionalGeneration`; its first layer holds the bias, which all layers add.
    weight: the trained bias, float32 [buckets, heads].
    padded: how many tokens the original padded every passage to.
    """
    attention = model.decoder.block[0].layer[1].EncDecAttention
    attention.has_relative_attention_bias = True
    attention.relative_attention_bias = nn.Embedding.from_pretrained(weight)
    attention.register_forward_pre_hook(partial(_with_bias, padded=padded), with_kwargs=True)


def _with_bias(
    attention: Any, inputs: tuple[Tensor, ...], named: dict[str, Any], padded: int
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The arguments of T5's cross-attention, with the bias [S or 1, heads, t, L] added. (With a
    cache, T5 itself would compute the bias for wrong positions of the queries.)"""
    cache, t = named.get("past_key_values"), inputs[0].shape[1]
    # Self-attention comes first and has already added these queries' own tokens to the cache.
    before = 0 if cache is None else cache.get_seq_length(attention.layer_idx) - t
    owner = getattr(getattr(cache, "cross_attention_cache", None), "owner", None)
    if owner is None:
        at = torch.arange(named["key_value_states"].shape[1], device=inputs[0].device)[None]
    else:
        at = places(owner, named["mask"][:, 0, 0] == 0, padded)
    queries = torch.arange(before, before + t, device=at.device)
    buckets = attention._relative_position_bucket(
        at[:, None, :] - queries[:, None],
        bidirectional=False,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    bias = attention.relative_attention_bias(buckets)  # [S or 1, t, L, heads]
    return inputs, {**named, "position_bias": bias.permute(0, 3, 1, 2)}


def _model(name: str, folder: Path) -> tuple[Any, Tensor | None]:
    """The T5, float32, and the bias of its cross-attention, float32 [buckets, heads], or None for a
    checkpoint made with `transformers` 4 or newer."""
    from transformers import T5Config, T5ForConditionalGeneration

    with refusing(lambda said: f"{folder / CONFIG} does not describe a T5 ({said}); save it again"):
        config = T5Config.from_pretrained(str(folder), trust_remote_code=False)
    kind: Any = T5ForConditionalGeneration
    stored = tensors_in(name, folder / TENSORS)
    check_counts(name, config.to_dict(), len(stored))
    check_size(name, stored, lambda: kind(config))
    with refusing(
        lambda said: (
            f"{folder / TENSORS} is damaged or does not fit {CONFIG} ({said}); save the checkpoint "
            "again"
        )
    ):
        state = {unwrapped(k): v.float() for k, v in load_file(str(folder / TENSORS)).items()}
        bias = state.pop(CROSS_BIAS, None)
        model, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=state,
            output_loading_info=True,
            trust_remote_code=False,
        )
    wrong = sorted([*info["missing_keys"], *info["unexpected_keys"]])
    if wrong:
        raise InputError(
            f"{folder / TENSORS} is not a whole T5: {a_few(wrong)} are missing or unknown; save "
            "the checkpoint again"
        )
    check_numbers(name, model)
    shape = (config.relative_attention_num_buckets, config.num_heads)
    if bias is not None and (bias.shape != shape or not bias.isfinite().all()):
        raise InputError(
            f"{folder / TENSORS} is damaged or does not fit {CONFIG}; save the checkpoint again"
        )
    return model, bias
