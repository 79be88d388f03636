"""What a folder in Hugging Face's layout holds, found out before anything of it is loaded.

No code from such a folder is executed: neither the classes that `auto_map` names, nor a pickle. A
model that cannot be loaded is refused in one sentence that says what can be. What else an encoder
needs is checked in `ragbook.models.layout`.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragbook.errors import InputError

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""The files that are taken from the hub: settings, vocabularies and weights, never a pickle."""
MODULES = "modules.json"
CLASSIFIER = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|"
    r"NextSentencePrediction)$"
)
_SENTENCEPIECE = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model")
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")


_WOULD_DO = {
    "encoder": "'minilm', a sentence-transformers or BERT-like model, a folder that `ragbook train "
    "dpr` wrote, or a DPR pair, by the name that contains 'ctx_encoder'",
    "model": "'bundled', a folder that `ragbook train` wrote, or a seq2seq or causal model",
}
SEQ2SEQ, CAUSAL, RAG = "seq2seq", "causal", "rag"


@dataclass(frozen=True)
class GeneratorFiles:
    """A checkpoint of a model that can generate: its name, its folder, and the kind of model that
    its configuration describes."""

    name: str
    folder: Path
    kind: str
    architecture: str


def inspect_generator(name: str) -> GeneratorFiles:
    """Check a folder, or a checkpoint of the hub, that is named as a reader or language model.

    Raises
    ------
    InputError: there is nothing with that name, or it cannot generate or cannot be loaded safely.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    )

    folder = checkpoint_folder(name, "model")
    refuse_code(name, folder)
    config = configuration(name, folder)
    architecture = (config.architectures or [""])[0]
    what, kind = architecture or config.model_type, type(config)
    if config.model_type == "rag":
        return GeneratorFiles(name, folder, RAG, what)
    if CLASSIFIER.search(architecture):
        raise InputError(
            f"{name} is a classifier ({what}), which cannot write answers; name a seq2seq or "
            "causal model, such as the one that it was trained from"
        )
    decoder = getattr(config, "is_decoder", False) or architecture.endswith("LMHeadModel")
    if architecture.endswith("EncoderModel"):
        raise InputError(
            f"{name} is only the encoder of a seq2seq model ({what}), which cannot write; name "
            "the whole model, or use this one as an --encoder"
        )
    if config.is_encoder_decoder and kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        found = SEQ2SEQ
    elif kind in MODEL_FOR_CAUSAL_LM_MAPPING and (
        decoder or kind not in MODEL_FOR_MASKED_LM_MAPPING
    ):
        found = CAUSAL
    else:
        raise InputError(
            f"{name} ({what}) is not a model that writes text; name a seq2seq model such as T5 or "
            "BART or a causal one such as GPT-2 or Llama"
            + ("; it may be an --encoder" if kind in MODEL_FOR_MASKED_LM_MAPPING else "")
        )
    check_transformer(name, folder)
    return GeneratorFiles(name, folder, found, what)


def loaded(found: GeneratorFiles) -> tuple[Any, Any]:
    """The model of a checkpoint that was looked through, float32, and its fast tokenizer.

    Raises
    ------
    InputError: a tensor is missing, unknown or of another shape, or there is no fast tokenizer; the
        message names it.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    name, folder = found.name, str(found.folder)
    kind: Any = AutoModelForCausalLM if found.kind == CAUSAL else AutoModelForSeq2SeqLM
    try:
        with quiet():
            model, info = kind.from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                dtype=torch.float32,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            f"{name} is damaged or not a complete checkpoint of {found.architecture} "
            f"({' '.join(str(error).split())[:200]}); save it again with save_pretrained"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"{name} lacks tensors of its model: {a_few(missing)}; download it again")
    if unexpected := sorted(info["unexpected_keys"]):
        raise InputError(
            f"{name} holds tensors that its model does not have: {a_few(unexpected)}; its "
            "config.json is that of another model or damaged: download it again"
        )
    if mismatched := sorted(str(key[0]) for key in info.get("mismatched_keys", ())):
        raise InputError(
            f"{name} holds tensors of another shape: {a_few(mismatched)}; download it again"
        )
    if not tokenizer.is_fast:
        raise InputError(
            f"{name} has no fast tokenizer; with sentencepiece installed, write its tokenizer.json "
            "by AutoTokenizer's save_pretrained"
        )
    return model, tokenizer


def check_tensors(name: str, folder: Path, model: Any) -> None:
    """Refuse weights that do not belong to the model: all of its tensors must be in the file, with
    the same shapes, and no others.

    A pooler may be missing, as its states are not used, and the head of the task that a checkpoint
    was trained on may be there.

    Parameters
    ----------
    folder: folder of the transformer's files.
    model: the `PreTrainedModel` loaded from them.

    Raises
    ------
    InputError: tensors are missing or do not fit; the message names them.
    """
    _, found = type(model).from_pretrained(
        str(folder),
        config=model.config,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
    )
    if missing := sorted(n for n in found["missing_keys"] if not n.startswith("pooler.")):
        raise InputError(f"{name} lacks tensors of its model: {a_few(missing)}; download it again")
    if mismatched := sorted(name for name, *_ in found["mismatched_keys"]):
        raise InputError(
            f"{name} holds tensors of other shapes than its config.json says: {a_few(mismatched)}; "
            "download it again"
        )
    if unexpected := sorted(found["unexpected_keys"] - _of_heads(model.config)):
        raise InputError(
            f"{name} holds tensors that its model does not have: {a_few(unexpected)}; its "
            "config.json is that of another model or damaged: download it again"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the bars and reports of transformers' loading; their important parts are checked here
    and reported in one sentence."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def checkpoint_folder(name: str, wanted: str = "encoder") -> Path:
    """The folder of that name, or the folder of the hub's cache with that checkpoint.

    Raises
    ------
    InputError: there is neither; the message says what can be named for what is `wanted`.
    """
    folder = Path(name)
    if not folder.is_dir() and re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        from huggingface_hub import snapshot_download

        with suppress(OSError, ValueError):  # it is neither in the cache nor on the network
            folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
    if not any((folder / file).is_file() for file in (MODULES, "config.json")):
        raise InputError(
            f"there is no {wanted} {name!r}: it is neither a local folder nor a checkpoint in the "
            f"hub's cache or on the network; choose {_WOULD_DO[wanted]}"
        )
    return folder


def settings_of(name: str, path: Path) -> Any:
    """What a file of settings says, as `json` gives it; an empty dictionary where there is no file.

    Raises
    ------
    InputError: it is not JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_bytes().decode())
    except ValueError as error:
        raise InputError(f"{path} of {name} is damaged ({error}); download it again") from None


def refuse_code(name: str, folder: Path) -> None:
    """Refuse a folder whose configuration names code to be run (`auto_map`).

    Raises
    ------
    InputError: it does; the message names the file.
    """
    for pattern in ("*config.json", "*/*config.json"):
        for path in sorted(folder.glob(pattern)):
            settings = settings_of(name, path)
            if isinstance(settings, dict) and settings.get("auto_map"):
                raise InputError(
                    f"{name} brings code of its own (auto_map in {path.name}), which ragbook never "
                    "runs; name a model whose class is part of transformers"
                )


def check_transformer(name: str, folder: Path) -> None:
    """Refuse a folder without weights or without a tokenizer in a form that can be read.

    Raises
    ------
    InputError: something is missing; the message names it and says what to do.
    """
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{name} is an adapter without its base model; merge the two (peft's "
            "merge_and_unload), save the result and name that folder"
        )
    if not any(
        (folder / file).is_file() for file in ("model.safetensors", "model.safetensors.index.json")
    ):
        raise no_weights(name, folder)
    there = {file for file in (*_SENTENCEPIECE, *_VOCABULARIES) if (folder / file).is_file()}
    if "tokenizer.json" not in there and there & set(_SENTENCEPIECE):
        raise InputError(
            f"{name} has a SentencePiece model ({min(there & set(_SENTENCEPIECE))}) and no fast "
            "tokenizer; with sentencepiece installed, write its tokenizer.json by AutoTokenizer's "
            "save_pretrained"
        )
    if not there:
        raise InputError(
            f"{name} has no tokenizer (none of {', '.join(_VOCABULARIES)}); save the tokenizer "
            "that the model was trained with into the same folder"
        )


def no_weights(name: str, folder: Path) -> InputError:
    """The refusal of a folder without safetensors, which names what it has instead."""
    others = sorted(
        path.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.gguf", "*.h5", "*.onnx")
        for path in folder.glob(pattern)
    )
    only = f" (only {a_few(others)})" if others else ""
    return InputError(
        f"{name} has no model.safetensors{only} in {folder.name}, and ragbook reads no other "
        "weights; load the model once with transformers or sentence-transformers and write it with "
        "save_pretrained"
    )


def configuration(name: str, folder: Path) -> Any:
    """What `config.json` describes, as transformers reads it.

    Raises
    ------
    InputError: transformers does not read it, or it asks for code of the hub.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{name} has a config.json that transformers cannot read "
            f"({' '.join(str(error).split())[:200]}); name another model"
        ) from error
    if "/" in str(getattr(config, "_attn_implementation", None)):
        raise InputError(
            f"{name} attends with code of the hub ({config._attn_implementation}), which is never "
            "run here; take attn_implementation out of its config.json"
        )
    return config


def _of_heads(config: Any) -> set[str]:
    """The names of all tensors of the architectures that a checkpoint was saved from."""
    import torch
    import transformers

    names: set[str] = set()
    for architecture in config.architectures or []:
        kind = getattr(transformers, architecture, None)
        if inspect.isclass(kind) and issubclass(kind, transformers.PreTrainedModel):
            with torch.device("meta"):  # only the names are needed, no numbers
                names |= kind(config).state_dict().keys()
    return names


def a_few(names: list[str]) -> str:
    """The first three of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
