"""What a folder must hold to be an encoder: a model that reads text, described by itself or by
sentence-transformers' `modules.json`, of which only modules of that library's own are loaded."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ragbook.errors import InputError
from ragbook.models.inspection import (
    CLASSIFIER,
    MODULES,
    check_transformer,
    checkpoint_folder,
    configuration,
    no_weights,
    refuse_code,
)
from ragbook.models.model_files import a_few, check_folder, settings_of, tensors_in

OWN_MODULES = (
    "Transformer", "StaticEmbedding", "Pooling", "CNN", "Dense", "LayerNorm", "Dropout",
    "Normalize",
)  # fmt: skip
"""The classes of sentence-transformers that a `modules.json` may name: those that read text, import
nothing by a name from a file, and keep their weights as safetensors."""
_OWN_TYPE = re.compile(
    r"sentence_transformers\.(models|base\.modules|sentence_transformer\.modules)(\.[a-z_]+)?\."
    rf"({'|'.join(OWN_MODULES)})"
)
_WITH_WEIGHTS = ("StaticEmbedding", "CNN", "Dense", "LayerNorm")
_ACTIVATION = re.compile(r"torch\.nn\.modules\.(activation|linear)\.\w+")
_TRANSFORMER_SETTINGS = {
    "max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name",
    "processing_kwargs", "unpad_inputs", "query_length", "document_length",
}  # fmt: skip
"""Settings of a `Transformer` module that say how text is read. Others say what else to load."""
_METHODS = ("forward", "get_text_features")


@dataclass(frozen=True)
class Layout:
    """What was found in a folder.

    Attributes
    ----------
    folder: where it lies, local.
    modules: the classes that `modules.json` names, in order; empty where there is no such file.
    transformer: where the transformer's own files lie; None for `StaticEmbedding`.
    """

    folder: Path
    modules: tuple[str, ...]
    transformer: Path | None


def inspect_folder(name: str, pooling: str | None = None) -> Layout:
    """Look through a folder, or a checkpoint of the hub, that is named as an encoder.

    Parameters
    ----------
    name: a local folder or a hub name.
    pooling: what was asked for; a causal language model is an encoder only if it says how.

    Raises
    ------
    InputError: there is nothing of that name, or it is no encoder that can be loaded safely.
    """
    folder = checkpoint_folder(name)
    check_folder(name, folder)
    refuse_code(name, folder)
    if not (folder / MODULES).is_file():
        check_transformer(name, folder)
        _check_kind(name, folder, pooling)
        return Layout(folder, (), folder)
    modules = _modules(name, folder)
    transformer = None
    for kind, path in modules:
        if kind == "Transformer":
            transformer = path
            check_settings(name, path)
            check_transformer(name, path)
            _check_kind(name, path, pooling, described=True)
        elif kind in _WITH_WEIGHTS:
            if not (path / "model.safetensors").is_file():
                raise no_weights(name, path)
            tensors_in(name, path / "model.safetensors")
        if kind == "Dense":
            activation = settings_of(name, path / "config.json").get("activation_function")
            if activation is not None and not _ACTIVATION.fullmatch(str(activation)):
                raise InputError(
                    f"{name} has a Dense layer with the activation {activation!r}, which is "
                    "not from torch.nn; name an encoder of sentence-transformers' own modules"
                )
    return Layout(folder, tuple(kind for kind, _ in modules), transformer)


def _modules(name: str, folder: Path) -> list[tuple[str, Path]]:
    """Class and folder of each module that `modules.json` names, in order."""
    said = settings_of(name, folder / "config_sentence_transformers.json").get("model_type")
    if said not in (None, "SentenceTransformer"):
        raise InputError(
            f"{name} is a {said} of sentence-transformers, which does not give each text a single "
            "vector; name a SentenceTransformer"
        )
    found = []
    try:
        for entry in settings_of(name, folder / MODULES, list):
            kind, path = entry["type"], entry["path"]
            if not path.isprintable():
                raise TypeError
            if not (match := _OWN_TYPE.fullmatch(kind)):
                raise InputError(
                    f"{name} has the module {kind!r}, and only sentence-transformers' own "
                    f"{', '.join(OWN_MODULES)} are loaded; name another encoder"
                )
            if os.path.isabs(path) or ".." in Path(path).parts:
                raise InputError(
                    f"{folder / MODULES} names {path!r}, which is outside its folder; name another "
                    "encoder"
                )
            if (folder / path).is_dir():
                check_folder(name, folder / path)
            elif match[3] != "Normalize":  # it has no files, and what git carries no folder
                raise InputError(f"{name} lacks the folder {path!r}; download it again")
            found.append((match[3], folder / path))
    except (KeyError, TypeError, AttributeError):
        found = []
    if not found or found[0][0] not in ("Transformer", "StaticEmbedding"):
        raise InputError(
            f"{folder / MODULES} does not begin with a module that reads text, or it is damaged; "
            "download the model again"
        )
    return found


def check_settings(name: str, folder: Path) -> None:
    """Refuse settings of a `Transformer` module that would load something else than its files.

    Raises
    ------
    InputError: there are some; the message names them.
    """
    for path in sorted(folder.glob("sentence_*_config.json")):
        settings = settings_of(name, path)
        odd = sorted(key for key in settings.keys() - _TRANSFORMER_SETTINGS if settings[key])
        if odd:
            raise InputError(
                f"{path} of {name} has settings that ragbook does not read: {a_few(odd)}; "
                "remove them if the model works without, or name another encoder"
            )
        ways = settings.get("modality_config") or {}
        if not isinstance(ways, dict) or not all(isinstance(w, dict) for w in ways.values()):
            raise InputError(f"{path} of {name} is damaged (modality_config); download it again")
        for entry in ways.values():
            if entry.get("method") not in _METHODS:
                raise InputError(
                    f"{path} of {name} calls the method {entry.get('method')!r}, and ragbook "
                    f"calls only {' and '.join(_METHODS)}; name another encoder"
                )


def _check_kind(name: str, folder: Path, pooling: str | None, described: bool = False) -> None:
    """The model turns text into states that can be pooled.

    Parameters
    ----------
    described: a `modules.json` says how they are pooled, whatever the model was made for.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_MAPPING,
    )

    config = configuration(name, folder)
    architecture = (config.architectures or [""])[0]
    what = architecture or config.model_type
    if CLASSIFIER.search(architecture):
        raise InputError(
            f"{name} is a classifier ({what}), which gives scores and no vectors; name an "
            "encoder, such as the model that it was trained from"
        )
    if config.model_type == "dpr":
        raise InputError(
            f"{name} is one half of a DPR pair; put both into folders whose names differ "
            "in 'ctx_encoder' and 'question_encoder', and name one of them"
        )
    seq2seq = config.is_encoder_decoder and not architecture.endswith("EncoderModel")
    if seq2seq and not described:
        raise InputError(
            f"{name} is a seq2seq model ({what}), which can be a --reader and not an encoder; "
            "name 'minilm', a sentence-transformers or a BERT-like model"
        )
    model = MODEL_MAPPING.get(type(config), None)
    reads = getattr(model, "main_input_name", None) == "input_ids"
    if not reads or not hasattr(config, "vocab_size"):
        raise InputError(f"{name} ({what}) is not a model for text only; name an encoder of text")
    kind = type(config)
    causal = getattr(config, "is_decoder", False) or (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    )
    if causal and not described and pooling not in ("last", "mean"):
        raise InputError(
            f"{name} is a causal language model ({what}), which can be a --reader or --lm; if it "
            "was trained to embed texts, give its pooling with --pooling last or mean, else name "
            "an encoder such as 'minilm'"
        )
