"""Cross-encoders: models that read a question and a passage together and give the pair one score
(Nogueira and Cho 2019). Any of sentence-transformers' can be named, by folder or hub name:

* a sequence classifier with one label (its logit is the score) or two (the log-odds of the second,
  which by convention is "relevant");
* a causal model with a `LogitScore` module, the log-odds of two of its words.

Scores are logits: what sentence-transformers would apply to them (a sigmoid, as a rule) keeps their
order and makes most of them 0 or 1, so that a softmax over passages could not tell these apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.devices import place
from ragbook.models.inspection import (
    MODULES,
    check_tensors,
    check_transformer,
    check_weights,
    checkpoint_folder,
    configuration,
    refuse_code,
)
from ragbook.models.layout import check_settings
from ragbook.models.limits import first_position
from ragbook.models.model_files import (
    check_folder,
    check_numbers,
    quiet,
    read_tokenizer,
    refusing,
    settings_of,
)
from ragbook.models.prompts import passage_text
from ragbook.models.sharing import one_at_a_time
from ragbook.models.towers import tensors_sha256

BATCH = 32  # pairs in one forward pass
_CLASSIFIES, _WRITES = "ForSequenceClassification", "ForCausalLM"
_OWN_TYPE = re.compile(
    r"sentence_transformers\.(base|cross_encoder)\.modules(\.[a-z_]+)?\.(Transformer|LogitScore)"
)
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


class CrossEncoder:
    """Scores pairs of a question and a passage; the passage is read as `title. text`, as by every
    other model here.

    Parameters
    ----------
    model: a `CrossEncoder` of sentence-transformers.
    name: what the model is called.
    sha256: of its tensors, its prompt and the words of a `LogitScore`, in hexadecimal.
    """

    def __init__(self, model: Any, name: str, sha256: str) -> None:
        self.model, self.name, self.sha256 = model, name, sha256

    @one_at_a_time
    def scores(self, question: str, passages: Sequence[Passage]) -> np.ndarray:
        """The logit of each passage for one question, float32 [n]. Pairs that are longer than what
        the model reads are cut as it was trained. Passages of similar length share a batch; what
        other questions are asked changes nothing."""
        if not passages:
            return np.zeros(0, np.float32)
        pairs = [(question, passage_text(passage)) for passage in passages]
        logits = self.model.predict(
            pairs,
            batch_size=BATCH,
            activation_fn=torch.nn.Identity(),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        logits = logits.float().cpu()
        if logits.ndim == 2:
            logits = logits[:, 1] - logits[:, 0]
        return logits.numpy()


@dataclass(frozen=True)
class CrossEncoderFiles:
    """A cross-encoder's folder, and the class of `transformers` that its weights are for."""

    folder: Path
    architecture: str


def inspect_cross_encoder(name: str) -> CrossEncoderFiles:
    """Look through a folder, or a checkpoint of the hub, that is named as a cross-encoder; no
    weights are loaded.

    Raises
    ------
    InputError: there is nothing of that name, or it is no cross-encoder that can be loaded safely.
    """
    folder = checkpoint_folder(name, "reranker")
    check_folder(name, folder)
    refuse_code(name, folder)
    described = (folder / MODULES).is_file()
    kinds = _modules(name, folder) if described else ("Transformer",)
    check_settings(name, folder)
    check_transformer(name, folder)
    config = configuration(name, folder)
    architecture = (config.architectures or [config.model_type])[0]
    wanted = _WRITES if kinds[-1] == "LogitScore" else _CLASSIFIES
    if not architecture.endswith(wanted):
        raise InputError(
            f"{name} ({architecture}) gives no score to a pair of texts; name a cross-encoder, "
            "such as cross-encoder/ms-marco-MiniLM-L6-v2"
        )
    if wanted == _CLASSIFIES and config.num_labels not in (1, 2):
        raise InputError(
            f"{name} tells {config.num_labels} classes apart, and not relevant from irrelevant; "
            "name a cross-encoder with one label or two"
        )
    return CrossEncoderFiles(folder, architecture)


def _modules(name: str, folder: Path) -> tuple[str, ...]:
    """The classes that `modules.json` names: a transformer, and a `LogitScore` behind a causal
    one."""
    said = settings_of(name, folder / "config_sentence_transformers.json").get("model_type")
    if said not in (None, "CrossEncoder"):
        raise InputError(
            f"{name} is a {said} of sentence-transformers, which gives each text a vector and no "
            "score to a pair; name a cross-encoder, or use this one as an --encoder"
        )
    found: list[str] = []
    for entry in settings_of(name, folder / MODULES, list):
        entry = entry if isinstance(entry, dict) else {}
        kind, path = str(entry.get("type")), entry.get("path")
        if not (match := _OWN_TYPE.fullmatch(kind)):
            raise InputError(
                f"{name} has the module {kind!r}, and only sentence-transformers' own Transformer "
                "and LogitScore are loaded; name another cross-encoder"
            )
        if path != ("" if match[3] == "Transformer" else f"{len(found)}_{match[3]}"):
            raise InputError(
                f"{folder / MODULES} has files in {path!r}, where sentence-transformers writes "
                "none; download the model again"
            )
        found.append(match[3])
    if found not in (["Transformer"], ["Transformer", "LogitScore"]):
        raise InputError(
            f"{folder / MODULES} does not describe a cross-encoder, a Transformer and at most a "
            "LogitScore; download the model again"
        )
    return tuple(found)


@one_at_a_time
def load_cross_encoder(
    name: str, *, device: str = "cpu", precision: str = "float32"
) -> CrossEncoder:
    """Load a cross-encoder from a folder or hub name.

    Parameters
    ----------
    device, precision: where its weights are and in which format; see `ragbook.models.devices`.

    Raises
    ------
    InputError: see `inspect_cross_encoder`; or a tensor is missing, unknown or of another shape.
    """
    import transformers

    found = inspect_cross_encoder(name)
    kind = getattr(transformers, found.architecture, None)
    if kind is None:
        raise InputError(
            f"{name} is a {found.architecture}, a class that transformers does not have; name "
            "another cross-encoder"
        )
    check_weights(name, found.folder, configuration(name, found.folder), kind)
    with (
        refusing(
            lambda said: (
                f"{name} does not load as a cross-encoder ({said}); download it again or name "
                "another"
            )
        ),
        quiet(),
    ):
        model = _loaded(found.folder)
        transformer = model[0]
        check_tensors(name, found.folder, transformer.model)
        read_tokenizer(name, found.folder, transformer.model.get_input_embeddings().num_embeddings)
        _settle(transformer)
        check_numbers(name, model)
        sha256 = _sha256(model)
        place(model, device, precision)
        encoder = CrossEncoder(model, name, sha256)
        tried = [Passage("", "", "A word."), Passage("", "A title", "Some more words.")]
        if not np.isfinite(encoder.scores("Which word?", tried)).all():
            raise ValueError("its scores are infinite or none")
    return encoder


def _loaded(folder: Path) -> Any:
    """sentence-transformers' own object, of which no other setting is followed than how the text is
    read."""
    import sentence_transformers

    return sentence_transformers.CrossEncoder(
        str(folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        activation_fn=torch.nn.Identity(),  # or one would be imported by its name in a file
        keep_in_fp32_modules=[],
        model_kwargs={
            **_LOCAL,
            "use_safetensors": True,
            "dtype": torch.float32,
            "ignore_mismatched_sizes": True,  # names and shapes are checked afterwards
        },
        processor_kwargs=dict(_LOCAL),
        config_kwargs=dict(_LOCAL),
    ).eval()


def _sha256(model: Any) -> str:
    found = tensors_sha256(model[0].model.state_dict())
    read = [model.prompts.get(model.default_prompt_name), model[0].max_seq_length]
    read += [module.get_config_dict() for module in list(model)[1:]]
    return hashlib.sha256(f"{found} {read}".encode()).hexdigest()


def _settle(transformer: Any) -> None:
    """Make sure that pairs can be padded, and are cut to the model's number of positions."""
    model, tokenizer = transformer.model, transformer.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    places = getattr(model.config, "max_position_embeddings", None)
    if places is not None:
        most = places - first_position(model)
        transformer.max_seq_length = min(transformer.max_seq_length or most, most)
