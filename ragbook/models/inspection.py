"""What a folder in Hugging Face's layout holds, found out before anything of it is loaded.

No code from such a folder is executed: neither the classes that `auto_map` names, nor a pickle. A
model that cannot be loaded is refused in one sentence that says what can be. What else an encoder
needs is checked in `ragbook.models.layout`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.models.adapters import CONFIG as ADAPTER_CONFIG
from ragbook.models.adapters import add_adapter, base_of, is_adapter
from ragbook.models.model_files import (
    SHARDS,
    WEIGHTS,
    a_few,
    check_counts,
    check_folder,
    check_numbers,
    check_size,
    check_vocabulary,
    one_line,
    quiet,
    read_tokenizer,
    refusing,
    settings_files,
    settings_of,
    stored_tensors,
)
from ragbook.models.smollm2 import ADAPTER, READING, SMOLLM2, smollm2_folder

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""The files that are taken from the hub: settings, vocabularies and weights, never a pickle."""
MODULES = "modules.json"
CLASSIFIER = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|"
    r"NextSentencePrediction)$"
)
_WOULD_DO = {
    "encoder": "'minilm', a sentence-transformers or BERT-like model, a folder that `ragbook train "
    "dpr` wrote, or a DPR pair, by the name that contains 'ctx_encoder'",
    "reranker": "a cross-encoder, such as cross-encoder/ms-marco-MiniLM-L6-v2",
    "model": "'bundled', 'smollm2', 'smollm2-reading', a folder that `ragbook train` wrote, or a "
    "seq2seq or causal model",
}
SEQ2SEQ, CAUSAL, RAG = "seq2seq", "causal", "rag"


@dataclass(frozen=True)
class GeneratorFiles:
    """A checkpoint of a model that can generate: its name, its folder, the kind of model that its
    configuration describes, and the folder of the adapter that changes it, if there is one."""

    name: str
    folder: Path
    kind: str
    architecture: str
    adapter: Path | None = None


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
    check_folder(name, folder)
    refuse_code(name, folder)
    if is_adapter(folder):
        return _with_base(name, folder)
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


def _with_base(name: str, folder: Path) -> GeneratorFiles:
    """An adapter's files with those of its base model."""
    base = base_of(name, folder)
    if is_adapter(checkpoint_folder(base, "model")):
        raise InputError(
            f"{name} is an adapter of another one, {base}; merge that one into its base model"
        )
    found = inspect_generator(base)
    if found.kind == RAG:
        raise InputError(f"{name} is an adapter of a RAG model, {base}; name that model instead")
    return replace(found, name=name, adapter=folder)


def loaded(found: GeneratorFiles) -> tuple[Any, Any]:
    """The model of a checkpoint that was looked through, float32, and its fast tokenizer.

    Raises
    ------
    InputError: a tensor is missing, unknown or of another shape, or there is no fast tokenizer; the
        message names it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    name, folder = found.name, found.folder
    kind: Any = AutoModelForCausalLM if found.kind == CAUSAL else AutoModelForSeq2SeqLM
    config = configuration(name, folder)
    check_weights(name, folder, config, kind)
    with (
        refusing(
            lambda said: (
                f"{name} is damaged or not a complete checkpoint of {found.architecture} ({said}); "
                "save it again with save_pretrained"
            )
        ),
        quiet(),
    ):
        model, info = kind.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=False,
        )
    refuse_other_tensors(name, info)
    if found.adapter is not None:
        add_adapter(name, found.adapter, model)
    check_numbers(name, model)
    rows = model.get_input_embeddings().num_embeddings
    return model, read_tokenizer(name, folder, rows)


def whole_model(kind: Any, name: str, what: str) -> Any:
    """A checkpoint of a class of `transformers`, whose tensors are all there, float32.

    Parameters
    ----------
    kind: the class, such as `DPRContextEncoder`.
    name: a local folder or a hub name.
    what: how sentences call such a checkpoint.

    Raises
    ------
    InputError: there is none, it is damaged, or a tensor is missing, unknown or of another shape.
    """
    import torch

    nowhere = (
        f"there is no {what} checkpoint with safetensors at {name!r}, neither in a local folder "
        "nor in the hub's cache or on the network"
    )
    if (folder := Path(name)).is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(f"{nowhere}; check the name, or download it first")
        check_folder(name, folder)
        refuse_code(name, folder)
        if not any((folder / file).is_file() for file in (WEIGHTS, SHARDS)):
            raise no_weights(name, folder)
        config = configuration(name, folder)
        if not isinstance(config, kind.config_class):
            raise InputError(f"{name} is a {one_line(config.model_type)} and not a {what} model")
        check_weights(name, folder, config, kind)
    with (
        refusing(lambda said: f"{nowhere} ({said}); check the name, or download it again"),
        quiet(),
    ):
        model, info = kind.from_pretrained(
            name,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
            trust_remote_code=False,
        )
    # DPR's published towers come with a pooler that nothing uses.
    extra = [n for n in info["unexpected_keys"] if not re.search(r"\.pooler\.|position_ids$", n)]
    refuse_other_tensors(name, {**info, "unexpected_keys": extra})
    check_numbers(name, model)
    return model.eval()


def check_weights(name: str, folder: Path, config: Any, kind: Any) -> None:
    """Refuse weights that cannot be those of the model that a configuration describes, before the
    model is made.

    Parameters
    ----------
    kind: the class of transformers that the model would be made by, such as `AutoModel`.

    Raises
    ------
    InputError: a file is damaged, or the configuration describes a far larger model.
    """
    tensors = stored_tensors(name, folder)
    check_counts(name, config.to_dict(), len(tensors))
    of_any_class = hasattr(kind, "from_config")
    check_size(
        name,
        tensors,
        lambda: kind.from_config(config, trust_remote_code=False) if of_any_class else kind(config),
    )


def refuse_other_tensors(name: str, info: Mapping[str, Any]) -> None:
    """Refuse weights of which transformers says that they are not the model's.

    Parameters
    ----------
    info: what `from_pretrained` gives with `output_loading_info`.

    Raises
    ------
    InputError: tensors are missing, unknown or of other shapes; the message names them.
    """
    if missing := sorted(info["missing_keys"]):
        raise InputError(f"{name} lacks tensors of its model: {a_few(missing)}; download it again")
    if mismatched := sorted(str(key) for key, *_ in info.get("mismatched_keys", ())):
        raise InputError(
            f"{name} holds tensors of other shapes than its config.json says: {a_few(mismatched)}; "
            "download it again"
        )
    if unexpected := sorted(info["unexpected_keys"]):
        raise InputError(
            f"{name} holds tensors that its model does not have: {a_few(unexpected)}; its "
            "config.json is that of another model or damaged: download it again"
        )


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
    refuse_other_tensors(
        name,
        {
            **found,
            "missing_keys": [n for n in found["missing_keys"] if not n.startswith("pooler.")],
            "unexpected_keys": found["unexpected_keys"] - _of_heads(model.config),
        },
    )


def checkpoint_folder(name: str, wanted: str = "encoder") -> Path:
    """The folder of that name, or the folder of the hub's cache with that checkpoint.

    Raises
    ------
    InputError: there is neither; the message says what can be named for what is `wanted`.
    """
    if name in (SMOLLM2, READING):
        return smollm2_folder() if name == SMOLLM2 else ADAPTER
    folder = Path(name)
    if not folder.is_dir() and re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        from huggingface_hub import snapshot_download

        with suppress(OSError, ValueError):  # it is neither in the cache nor on the network
            folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
    if not any((folder / file).is_file() for file in (MODULES, "config.json", ADAPTER_CONFIG)):
        raise InputError(
            f"there is no {wanted} {name!r}: it is neither a local folder nor a checkpoint in the "
            f"hub's cache or on the network; choose {_WOULD_DO[wanted]}"
        )
    return folder


def refuse_code(name: str, folder: Path) -> None:
    """Refuse a folder whose configuration names code to be run (`auto_map`).

    Raises
    ------
    InputError: it does; the message names the file.
    """
    for where in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in settings_files(where):
            if settings_of(name, path).get("auto_map"):
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
    if is_adapter(folder):
        raise InputError(
            f"{name} is an adapter without its base model; merge the two (peft's "
            "merge_and_unload), save the result and name that folder"
        )
    if not any((folder / file).is_file() for file in (WEIGHTS, SHARDS)):
        raise no_weights(name, folder)
    check_vocabulary(name, folder)


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

    said_architectures = settings_of(name, folder / "config.json").get("architectures") or []
    if not isinstance(said_architectures, list) or not all(
        isinstance(one, str) for one in said_architectures
    ):
        raise InputError(
            f"{name} has a config.json whose architectures are not a list of names; download it "
            "again"
        )
    with refusing(
        lambda said: (
            f"{name} has a config.json that transformers cannot read ({said}); name another model"
        )
    ):
        config = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
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
