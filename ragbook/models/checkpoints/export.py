"""Exports the bundled models as whole checkpoints, which `transformers` loads without this package.

The folder `weights/` holds only what training changed. An exported folder holds everything, for the
standard classes:

* a seq2seq reader is an `EncoderDecoderModel` (`AutoModelForSeq2SeqLM.from_pretrained(folder)`),
* the language model a `BertLMHeadModel` (`AutoModelForCausalLM.from_pretrained(folder)`),
* REALM's encoder a `BertModel` (`AutoModel.from_pretrained(folder)`), its span scorer, for which
  `transformers` has no class, beside it as `span.safetensors`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save_file
from torch import nn
from transformers import EncoderDecoderModel

from ragbook.errors import InputError
from ragbook.files import replace_folder
from ragbook.models.bundled import BUNDLED, weights_folder
from ragbook.models.loading import load_language_model, load_reader, load_span_reader

EXPORTS = ("reader", "rag-sequence", "rag-token", "fid", "realm", "lm")
"""What can be exported: the shared reader, each method's version of it, the language model."""


def export(name: str, folder: Path, reader: str = BUNDLED) -> None:
    """Write one model and its tokenizer into a new folder, float32.

    Parameters
    ----------
    name: one of `EXPORTS`.
    folder: must not exist; it is written under another name and renamed when it is complete.
    reader: folder of readers that `ragbook train reader` wrote, in place of the bundled ones.

    Raises
    ------
    InputError: the name is unknown, the folder exists, or weights are missing or damaged.
    """
    if name not in EXPORTS:
        raise InputError(f"there is no model {name!r} to export; choose from {', '.join(EXPORTS)}")
    if weights_folder(reader) is None:
        raise InputError(f"{reader} holds no weights.json; name a folder `ragbook train` wrote")
    if folder.exists():
        raise InputError(f"{folder} exists already; name another folder")
    scorer: nn.Module | None = None
    if name == "lm":
        lm = load_language_model()
        model, tokenizer = lm.model, lm.tokenizer
    elif name == "realm":
        span = load_span_reader(reader, "realm")
        model, tokenizer, scorer = span.pairs.encoder, span.tokenizer, span.scorer
    else:
        seq = load_reader(reader, None if name == "reader" else name)
        tokenizer = seq.tokenizer
        # The standard class has its own copy of the word embeddings in the decoder, and a pooler
        # that nothing here uses.
        model = EncoderDecoderModel(seq.model.config)
        for missing in model.load_state_dict(seq.model.state_dict(), strict=False).missing_keys:
            nn.init.zeros_(model.get_parameter(missing))
        model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id
        model.generation_config.eos_token_id = model.config.eos_token_id
        model.generation_config.pad_token_id = model.config.pad_token_id
        model.generation_config.max_length = 16
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    if scorer is not None:
        save_file(dict(scorer.state_dict()), str(partial / "span.safetensors"))
    replace_folder(partial, folder)
