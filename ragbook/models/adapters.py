r"""Low-rank adapters of a causal or seq2seq model, in the files that `peft` writes.

A matrix \(W\) becomes \(W + s B A\), with \(B\) [out, r] and \(A\) [r, in] (Hu et al. 2022). A
folder has `adapter_config.json`, which names the base model, and `adapter_model.safetensors`. Those
of `ragbook train lora` also have the prompt that they were trained on, `prompt.json`, and
`adapter.json`, which lists the others with their hashes. A folder within it that has a method's
name is the adapter by that method's own objective, in the same form.

The factors are added to the weights when a model is loaded, so that nothing is slower afterwards.
Only plain LoRA is read, and by this module: a configuration of peft's may ask for much else.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.errors import InputError
from ragbook.files import file_records, write_json
from ragbook.models.model_files import a_few, one_line, refusing, settings_of, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG, FACTORS = "adapter_config.json", "adapter_model.safetensors"
PROMPT, RECORDS = "prompt.json", "adapter.json"
PREFIX = "base_model.model."
"""What peft puts before the names of the base model's modules."""
_OTHER_KINDS = (
    "alpha_pattern",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "trainable_token_indices",
    "use_dora",
)
"""Settings with which an adapter is more than pairs of factors."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


def own_adapter(name: str, method: str) -> str | None:
    """The folder of a method's own adapter within the one that all methods share; None if there is
    none, or the name is not that of an adapter's folder."""
    shared = Path(name)
    return str(shared / method) if is_adapter(shared) and is_adapter(shared / method) else None


def base_of(name: str, folder: Path) -> str:
    """The name of the model that an adapter changes.

    Raises
    ------
    InputError: the folder's files are damaged, or it is no plain LoRA.
    """
    settings = settings_of(name, folder / CONFIG)
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(
            f"{folder / CONFIG} does not name its base model (base_model_name_or_path); write the "
            "model's name there"
        )
    odd = [key for key in _OTHER_KINDS if settings.get(key)]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none" or odd:
        said = a_few(odd) or f"peft_type {one_line(settings.get('peft_type'), 20)}, or a bias"
        raise InputError(
            f"{name} is no plain LoRA ({said}); merge it into its base model with peft's "
            "merge_and_unload, save the result and name that folder"
        )
    if (folder / RECORDS).is_file():
        listed = settings_of(name, folder / RECORDS)
        with refusing(lambda said: f"{folder / RECORDS} lists other files than there are ({said})"):
            whole = file_records(folder, sorted(listed)) == listed
        if not whole:
            raise InputError(f"a file of {name} is not the one that {RECORDS} lists; restore it")
    return base


def add_adapter(name: str, folder: Path, model: nn.Module) -> None:
    """Add an adapter's factors to a base model's weights, in place.

    Raises
    ------
    InputError: the files are damaged, or the factors are not those of this model.
    """
    from safetensors.torch import load_file

    from ragbook.models.changes import apply

    settings, path = settings_of(name, folder / CONFIG), folder / FACTORS
    if not path.is_file():
        raise InputError(f"{name} has no {FACTORS}; ragbook reads no other adapters")
    tensors_in(name, path)
    with refusing(lambda said: f"{path} is damaged ({said}); download it again"):
        stored = load_file(str(path))
    apply(model, _changes(name, stored, settings))


def _changes(name: str, stored: dict[str, Tensor], settings: dict[str, Any]) -> dict[str, Tensor]:
    """The factors as changes of the model's tensors; see `ragbook.models.changes`."""
    kinds = {"lora_A.weight": "right", "lora_B.weight": "left"}
    alpha, out = settings.get("lora_alpha"), {}
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InputError(f"{CONFIG} of {name} has no number as its lora_alpha; download it again")
    for key, tensor in stored.items():
        module, _, kind = key.removeprefix(PREFIX).rpartition(".lora_")
        side = kinds.get(f"lora_{kind}")
        if side is None or not module or tensor.dim() != 2:
            raise InputError(
                f"{name} holds {one_line(key)}, which is no factor of a linear layer; merge it "
                "into its base model with peft, save the result and name that folder"
            )
        if not tensor.isfinite().all():
            raise InputError(
                f"{name} holds numbers that are infinite or none: {one_line(key)}; download it "
                "again"
            )
        rank = max(1, tensor.shape[0 if side == "right" else 1])
        if side == "left":
            tensor = tensor.float() * (alpha / (rank**0.5 if settings.get("use_rslora") else rank))
        if settings.get("fan_in_fan_out"):  # GPT-2's layers keep their matrices transposed
            side, tensor = "left" if side == "right" else "right", tensor.T
        out[f"{module}.weight.{side}"] = tensor
    if not out:
        raise InputError(f"{name} holds no tensors; download it again")
    other = {".lora_A.": ".lora_B.", ".lora_B.": ".lora_A."}
    pairs = {k.replace(a, b) for k in stored for a, b in other.items() if a in k}
    if alone := sorted(pairs - set(stored)):
        raise InputError(f"{name} lacks tensors of its adapter: {a_few(alone)}; download it again")
    return out


def write_records(folder: Path) -> None:
    """List an adapter's files with their hashes, the last thing that is written."""
    names = [file for file in (CONFIG, FACTORS, PROMPT) if (folder / file).is_file()]
    write_json(folder / RECORDS, file_records(folder, names))
