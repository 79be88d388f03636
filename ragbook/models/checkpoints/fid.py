"""FiD checkpoints as facebookresearch/FiD saves them: a T5 whose encoder is wrapped.

The wrap stands in the tensors' names only: `encoder.encoder.block.0.module.layer...` is T5's
`encoder.block.0.layer...`. Whoever unwrapped the encoder before saving left plain T5 names; these
load too.

The original checkpoints come from `transformers` 3.0, which differs from today's in two ways, and
bring the mark of it along, a position bias in the decoder's cross-attention:

* That bias was added to the scores of the first tokens of the first passage, as many as the answer
  has so far, and alike to all others. It was trained, so it stays.
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
    """A FiD checkpoint's reader, which reads "question: ... title: ... context: ...".

    Parameters
    ----------
    name: a local folder with config.json, model.safetensors and the tokenizer (the original
        checkpoints come without one: they read and write T5's).

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
                f"{folder / PICKLED} would have to be unpickled, which can run code; where you "
                f"trust it, read it once with torch.load (weights_only=True) and write its tensors "
                f"as {TENSORS} with safetensors.torch.save_file, each one cloned"
            )
        raise InputError(f"there is no FiD checkpoint at {name!r}: it has no {TENSORS}")
    if not any((folder / file).is_file() for file in TOKENIZERS):
        raise InputError(
            f"{name} has no tokenizer; save T5's there, for instance with "
            f"AutoTokenizer.from_pretrained('t5-base').save_pretrained({name!r})"
        )
    from transformers import AutoTokenizer

    model, original = _model(folder)
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
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
    """T5's name of a tensor of a wrapped one."""
    if not key.startswith(WRAPPED):
        return key
    inner = key.removeprefix(WRAPPED)
    return "encoder." + re.sub(r"^(block\.\d+)\.module\.", r"\1.", inner)


def _model(folder: Path) -> tuple[Any, bool]:
    """The T5, float32, and whether its cross-attention has the bias of before `transformers` 4."""
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config.from_pretrained(str(folder), trust_remote_code=False)
    kind: Any = T5ForConditionalGeneration
    try:
        state = {unwrapped(k): v.float() for k, v in load_file(str(folder / TENSORS)).items()}
        bias = state.pop(CROSS_BIAS, None)
        model, info = kind.from_pretrained(
            None,
            config=config,
            state_dict=state,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (SafetensorError, RuntimeError) as error:  # damaged, or other shapes
        raise InputError(f"{folder / TENSORS} is damaged or does not fit {CONFIG}") from error
    wrong = sorted([*info["missing_keys"], *info["unexpected_keys"]])
    if wrong:
        raise InputError(f"{folder / TENSORS} is no whole T5: {', '.join(wrong[:3])}")
    if bias is not None:
        attention = model.decoder.block[0].layer[1].EncDecAttention
        attention.has_relative_attention_bias = True
        attention.relative_attention_bias = nn.Embedding.from_pretrained(bias)
    return model, bias is not None
