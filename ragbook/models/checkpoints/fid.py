"""FiD checkpoints as facebookresearch/FiD saves them: a T5 whose encoder is wrapped.

The wrapper changes only the tensors' names: `encoder.encoder.block.0.module.layer...` is T5's
`encoder.block.0.layer...`. Checkpoints saved after unwrapping the encoder have plain T5 names and
load too.

The original checkpoints come from `transformers` 3.0, which differs from today's in two ways. They
are recognised by the first, a position bias in the decoder's cross-attention:

* This bias was added to the scores of the first passage's first tokens, as many as the answer has
  so far, and one value to all other scores. It was trained, so it is kept.
* Inputs had no end token.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from ragbook.errors import InputError
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
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise InputError(
            f"{name} has no tokenizer; save T5's there, for instance with "
            f"AutoTokenizer.from_pretrained('t5-base').save_pretrained({name!r})"
        )
    from transformers import AutoTokenizer

    model, original = _model(folder)
    tokenizer = AutoTokenizer.from_pretrained(name)
    return SeqReader(model, tokenizer, name, FidLayout(special=not original), opening=())


def is_fid(name: str) -> bool:
    """Whether `name` is a folder with a FiD checkpoint, by its configuration or tensors' names."""
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        return False
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if "FiDT5" in (config.get("architectures") or ()):
            return True
        with safe_open(str(folder / TENSORS), framework="pt") as file:
            # An EncoderDecoderModel of two BERTs has an `encoder.encoder.layer`.
            return any(key.startswith(f"{WRAPPED}block.") for key in list(file.keys()))
    except (OSError, ValueError, SafetensorError):
        return False


def unwrapped(key: str) -> str:
    """The name in a plain T5 of a tensor of the wrapped one."""
    if not key.startswith(WRAPPED):
        return key
    inner = key.removeprefix(WRAPPED)
    return "encoder." + re.sub(r"^(block\.\d+)\.module\.", r"\1.", inner)


def _model(folder: Path) -> tuple[Any, bool]:
    """The T5, float32, and whether its cross-attention has the position bias (see the module)."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config.from_pretrained(str(folder))
    kind: Any = T5ForConditionalGeneration
    try:
        state = {unwrapped(k): v.float() for k, v in load_file(str(folder / TENSORS)).items()}
        bias = state.pop(CROSS_BIAS, None)
        model, info = kind.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True
        )
    except (SafetensorError, RuntimeError) as error:  # damaged, or other shapes
        raise InputError(
            f"{folder / TENSORS} is damaged or does not fit {CONFIG}; save the checkpoint again"
        ) from error
    wrong = sorted([*info["missing_keys"], *info["unexpected_keys"]])
    if wrong:
        raise InputError(
            f"{folder / TENSORS} is not a whole T5: {', '.join(wrong[:3])} are missing or unknown; "
            "save the checkpoint again"
        )
    if bias is not None:
        attention = model.decoder.block[0].layer[1].EncDecAttention
        attention.has_relative_attention_bias = True
        attention.relative_attention_bias = nn.Embedding.from_pretrained(bias)
    return model, bias is not None
