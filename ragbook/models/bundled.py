"""The readers that ship with the package, and readers from the hub in their place.

The bundled files hold only what training changed, in bfloat16; the rest comes from the embedded
encoder. `weights/weights.json` lists each file's size and SHA-256; a file that does not match its
SHA-256 is refused.
"""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from ragbook.errors import InputError
from ragbook.files import file_records, sha256_of_file, write_json
from ragbook.models.checkpoints.fid import is_fid, load_fid
from ragbook.models.checkpoints.rag import load_rag_reader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.encoder import Encoder, load_encoder
from ragbook.models.lm import LanguageModel, new_lm_model
from ragbook.models.seq2seq import SeqReader, new_reader_model
from ragbook.models.sharing import one_at_a_time
from ragbook.models.span import SpanReader, SpanScorer

WEIGHTS = Path(__file__).parent / "weights"
BUNDLED = "bundled"


@cache
def manifest(folder: Path = WEIGHTS) -> dict[str, Any]:
    """The content of `weights.json`: files with hashes, and the settings tuned on the dev split.

    Raises
    ------
    InputError: there is no such file.
    """
    path = folder / "weights.json"
    if not path.is_file():
        raise InputError(f"the bundled weights are missing ({path}); reinstall ragbook")
    return json.loads(path.read_text(encoding="utf-8"))


def write_manifest(folder: Path, **settings: Any) -> None:
    """Write `weights.json`: the folder's files with sizes and hashes, and the given settings."""
    files = file_records(folder, sorted(path.name for path in folder.glob("*.safetensors")))
    write_json(folder / "weights.json", {"files": files, **settings})


def tensors(name: str, folder: Path = WEIGHTS) -> dict[str, torch.Tensor]:
    """The tensors of one bundled file, float32, its hash checked.

    Raises
    ------
    InputError: the file is missing or is not the one that `weights.json` lists.
    """
    path, listed = folder / name, manifest(folder)["files"].get(name)
    if listed is None or not path.is_file() or sha256_of_file(path) != listed["sha256"]:
        raise InputError(f"{path} is missing or damaged; reinstall ragbook")
    return {key: value.float() for key, value in load_file(str(path)).items()}


def fill(module: torch.nn.Module, changed: dict[str, torch.Tensor]) -> None:
    """Copy tensors into the module by name.

    Raises
    ------
    InputError: the module has no tensor of one of the names.
    """
    unexpected = module.load_state_dict(changed, strict=False).unexpected_keys
    if unexpected:
        raise InputError(
            f"the weights do not fit the model, which has no {', '.join(unexpected[:3])}; use the "
            "weights that were trained for it"
        )


def weights_folder(name: str) -> Path | None:
    """The folder of the bundled readers or of readers trained with this package; None for any other
    name."""
    folder = WEIGHTS if name == BUNDLED else Path(name)
    return folder if name == BUNDLED or (folder / "weights.json").is_file() else None


def reader_model(folder: Path = WEIGHTS) -> Any:
    """The seq2seq reader's `EncoderDecoderModel`, float32; each call returns a new one."""
    model = new_reader_model()
    fill(model.get_encoder(), tensors("encoder.safetensors", folder))
    fill(model.decoder, tensors("decoder.safetensors", folder))
    return model


def span_scorer(hidden: int, folder: Path = WEIGHTS) -> SpanScorer:
    """REALM's span scorer, float32; each call returns a new one."""
    scorer = SpanScorer(hidden)
    fill(scorer, tensors("span.safetensors", folder))
    return scorer


@one_at_a_time
@cache
def load_reader(name: str = BUNDLED, method: str | None = None) -> SeqReader:
    """The seq2seq reader of RAG, FiD and the closed book.

    Parameters
    ----------
    name: the bundled reader, a folder that `ragbook train reader` wrote, or any seq2seq model that
        `transformers` loads from a path or the hub. This includes the generator of a RAG checkpoint
        and, from a folder, an original FiD checkpoint (`ragbook.models.checkpoints.fid`).
    method: load the reader as tuned to this method's objective, if there is such a version. All
        versions share one encoder, and pairs that one of them has encoded are not encoded again by
        the others.

    Raises
    ------
    InputError: there is no such model, or weights are missing or damaged.
    """
    folder = weights_folder(name)
    if method is not None:
        shared = load_reader(name)
        if folder is None or f"{method}.safetensors" not in manifest(folder)["files"]:
            return shared
        own = tensors(f"{method}.safetensors", folder)
        parameters = shared.model.named_parameters()
        kept = {id(p): p for name, p in parameters if name.removeprefix("decoder.") not in own}
        model = deepcopy(shared.model, kept)  # copies nothing but what changes
        fill(model.decoder, own)
        reader = SeqReader(model, shared.tokenizer, name)
        reader.pairs = shared.pairs
        return reader
    if folder is None and is_fid(name):
        return load_fid(name)
    if folder is None:
        from transformers import AutoConfig, AutoModelForSeq2SeqLM

        try:
            if AutoConfig.from_pretrained(name, trust_remote_code=False).model_type == "rag":
                return load_rag_reader(name)
            model = AutoModelForSeq2SeqLM.from_pretrained(
                name, use_safetensors=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            return SeqReader(model, tokenizer, name)
        except OSError as error:
            raise _unreachable(name) from error
    return SeqReader(reader_model(folder), minilm_tokenizer(), name)


def load_joint() -> tuple[SeqReader, Encoder]:
    """RAG-Sequence's reader and question tower as `ragbook train rag` trained them together; the
    encoder can search every index that was built with the embedded one."""
    return load_reader(method="rag-joint"), load_encoder(str(WEIGHTS))


@one_at_a_time
@cache
def load_span_reader(name: str = BUNDLED, method: str | None = None) -> SpanReader:
    """REALM's span reader. It shares its encoder with the seq2seq reader, and pairs that one of the
    two has encoded are not encoded again by the other. `method` is as in `load_reader`.

    Raises
    ------
    InputError: the name is neither `bundled` nor a folder that `ragbook train reader` wrote, or
        weights are missing or damaged.
    """
    folder = weights_folder(name)
    if folder is None:
        raise InputError(f"{name} holds no weights.json; name a folder `ragbook train` wrote")
    reader = load_reader(name)
    encoder = reader.model.get_encoder()
    scorer = span_scorer(encoder.config.hidden_size, folder)
    if method is not None and f"{method}.safetensors" in manifest(folder)["files"]:
        fill(scorer, tensors(f"{method}.safetensors", folder))
    span_reader = SpanReader(encoder, scorer, reader.tokenizer, name)
    span_reader.pairs = reader.pairs
    return span_reader


@one_at_a_time
@cache
def load_language_model(name: str = BUNDLED) -> LanguageModel:
    """kNN-LM's base model: the bundled one, a folder with `weights.json` and `lm.safetensors` that
    `ragbook train lm` wrote, or any causal model that `transformers` loads from a path or the hub.

    Raises
    ------
    InputError: there is no such model, or weights are missing or damaged.
    """
    folder = weights_folder(name)
    if folder is None or (name != BUNDLED and "lm.safetensors" not in manifest(folder)["files"]):
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(
                name, use_safetensors=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            return LanguageModel(model, tokenizer, name)
        except OSError as error:
            raise _unreachable(name) from error
    model = new_lm_model()
    fill(model, tensors("lm.safetensors", folder))
    return LanguageModel(model, minilm_tokenizer(), name)


def _unreachable(name: str) -> InputError:
    return InputError(
        f"there is no model at {name!r}: it is neither a local folder nor a checkpoint in the "
        "hub's cache or on the network; check the name, or download it first"
    )
