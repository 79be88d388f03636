"""The readers that ship with the package, and any of the hub's in their place.

The bundled files hold only what training changed, in bfloat16; the embedded encoder gives the rest.
`weights/weights.json` lists each file's size and SHA-256, and no file is read that does not match.
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
from ragbook.models.cached import check_left_to_right, check_reader
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
    """What `weights.json` says: files with hashes, and the settings tuned on the dev split."""
    path = folder / "weights.json"
    if not path.is_file():
        raise InputError(f"the bundled weights are missing ({path}); reinstall ragbook")
    return json.loads(path.read_text(encoding="utf-8"))


def write_manifest(folder: Path, **settings: Any) -> None:
    """List the folder's files with sizes and hashes in `weights.json`, and the settings given."""
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
    """Put tensors in place by name; every one must have its place."""
    unexpected = module.load_state_dict(changed, strict=False).unexpected_keys
    if unexpected:
        raise InputError(f"the weights do not fit the model: {', '.join(unexpected[:3])}")


def weights_folder(name: str) -> Path | None:
    """Where the bundled readers' files or those of a training of one's own lie; None elsewhere."""
    folder = WEIGHTS if name == BUNDLED else Path(name)
    return folder if name == BUNDLED or (folder / "weights.json").is_file() else None


def reader_model(folder: Path = WEIGHTS) -> Any:
    """The seq2seq reader's `EncoderDecoderModel`, float32, a new one at every call."""
    model = new_reader_model()
    fill(model.get_encoder(), tensors("encoder.safetensors", folder))
    fill(model.decoder, tensors("decoder.safetensors", folder))
    return model


def span_scorer(hidden: int, folder: Path = WEIGHTS) -> SpanScorer:
    """REALM's span scorer, float32, a new one at every call."""
    scorer = SpanScorer(hidden)
    fill(scorer, tensors("span.safetensors", folder))
    return scorer


@one_at_a_time
@cache
def load_reader(name: str = BUNDLED, method: str | None = None) -> SeqReader:
    """The seq2seq reader of RAG, FiD and the closed book.

    The bundled one, one that `ragbook train reader` wrote into a folder, or any that
    `transformers` reads from a path or the hub: the generator of a RAG checkpoint included, and in
    a folder an original FiD (`ragbook.models.checkpoints.fid`). With a `method`, as that method's
    own objective changed it, where it did; all of them encode with the one encoder, and pairs that
    one has encoded the others need not encode again.

    Raises
    ------
    InputError: there is no such model, or it cannot be read through a cache.
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
            if AutoConfig.from_pretrained(name).model_type == "rag":
                return load_rag_reader(name)
            model = AutoModelForSeq2SeqLM.from_pretrained(name, use_safetensors=True)
            reader = SeqReader(model, AutoTokenizer.from_pretrained(name), name)
            check_reader(reader)
            return reader
        except OSError as error:
            raise _unreachable(name) from error
    return SeqReader(reader_model(folder), minilm_tokenizer(), name)


def load_joint() -> tuple[SeqReader, Encoder]:
    """RAG-Sequence's reader and question tower as `ragbook train rag` trained them together; the
    encoder searches every index that the embedded one built."""
    return load_reader(method="rag-joint"), load_encoder(str(WEIGHTS))


@one_at_a_time
@cache
def load_span_reader(name: str = BUNDLED, method: str | None = None) -> SpanReader:
    """REALM's span reader; its encoder is the seq2seq reader's own, and pairs that one of the two
    has encoded the other need not encode again. `method` as in `load_reader`.

    Raises
    ------
    InputError: the name is neither the bundled one's nor a folder of `ragbook train reader`.
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
    """kNN-LM's base model: the bundled one, that of a folder with `weights.json` and
    `lm.safetensors`, as a training of the bundled one leaves it, or any that `transformers` reads
    from a path or the hub.

    Raises
    ------
    InputError: there is no such model, or it does not read from left to right.
    """
    folder = weights_folder(name)
    if folder is None or (name != BUNDLED and "lm.safetensors" not in manifest(folder)["files"]):
        from transformers import AutoModelForCausalLM

        try:
            model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True)
            lm = LanguageModel(model, AutoTokenizer.from_pretrained(name), name, checked=False)
            check_left_to_right(name, lambda ids: lm.forward(ids)[1])
            return lm
        except OSError as error:
            raise _unreachable(name) from error
    model = new_lm_model()
    fill(model, tensors("lm.safetensors", folder))
    return LanguageModel(model, minilm_tokenizer(), name)


def _unreachable(name: str) -> InputError:
    return InputError(
        f"there is no model at {name!r}: neither a folder here nor a checkpoint that the hub's "
        "cache or the network gives; check the name, or download it first"
    )
