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
_A, _B = ".lora_A.weight", ".lora_B.weight"
_PLAIN = {
    "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha",
    "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
"""The settings of a plain LoRA. With any other, an adapter is more than pairs of factors."""
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""How factors may have been drawn. Other ways (PiSSA, OLoRA) also change the base model's weights.
"""


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
    odd = sorted(key for key, value in settings.items() if value and key not in _PLAIN)
    if settings.get("init_lora_weights", True) not in _STARTS:
        odd.append("init_lora_weights")
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none" or odd:
        said = a_few(odd) or f"peft_type {one_line(settings.get('peft_type'), 20)}, or a bias"
        raise InputError(
            f"{name} is no plain LoRA ({said}); merge it into its base model with peft's "
            "merge_and_unload, save the result and name that folder"
        )
    if (folder / RECORDS).is_file() and settings_of(name, folder / RECORDS) != _records(folder):
        raise InputError(f"a file of {name} is not the one that {RECORDS} lists; restore it")
    return base


def read_factors(name: str, folder: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """An adapter's factors by their names in its file, and the scale s of each module that has any.

    Raises
    ------
    InputError: the file is missing or damaged, or holds what are no pairs of factors.
    """
    from safetensors.torch import load_file

    path = folder / FACTORS
    if not path.is_file():
        raise InputError(f"{name} has no {FACTORS}; ragbook reads no other adapters")
    tensors_in(name, path)
    with refusing(lambda said: f"{path} is damaged ({said}); download it again"):
        stored = load_file(str(path))
    if not stored:
        raise InputError(f"{name} holds no tensors; download it again")
    for key, tensor in stored.items():
        if not _module_of(key) or tensor.dim() != 2:
            raise InputError(
                f"{name} holds {one_line(key)}, which is no factor of a linear layer; merge it "
                "into its base model with peft, save the result and name that folder"
            )
        if not tensor.isfinite().all():
            raise InputError(
                f"{name} holds numbers that are infinite or none: {one_line(key)}; download it "
                "again"
            )
    modules = {_module_of(key) for key in stored}
    pairs = {f"{PREFIX}{module}{kind}" for module in modules for kind in (_A, _B)}
    if alone := sorted(pairs - set(stored)):
        raise InputError(f"{name} lacks tensors of its adapter: {a_few(alone)}; download it again")
    settings = settings_of(name, folder / CONFIG)
    alpha = settings.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
        raise InputError(f"{CONFIG} of {name} has no number as its lora_alpha; download it again")
    scales = {}
    for module in modules:
        rank = max(1, len(stored[f"{PREFIX}{module}{_A}"]))
        scales[module] = alpha / (rank**0.5 if settings.get("use_rslora") else rank)
    return stored, scales


def _module_of(key: str) -> str:
    """The name of the module that a factor belongs to; nothing if it is no factor."""
    kind = next((kind for kind in (_A, _B) if key.endswith(kind)), None)
    whole = kind is not None and key.startswith(PREFIX)
    return key.removeprefix(PREFIX).removesuffix(kind or "") if whole else ""


def add_adapter(name: str, folder: Path, model: nn.Module) -> None:
    """Add an adapter's factors to a base model's weights, in place.

    Raises
    ------
    InputError: the files are damaged, or the factors are not those of this model.
    """
    from ragbook.models.changes import apply

    stored, scales = read_factors(name, folder)
    changes = {}
    for module, scale in scales.items():
        left = stored[f"{PREFIX}{module}{_B}"].float() * scale
        right = stored[f"{PREFIX}{module}{_A}"].float()
        if settings_of(name, folder / CONFIG).get("fan_in_fan_out"):
            left, right = right.T, left.T  # GPT-2's layers keep their matrices transposed
        changes |= {f"{module}.weight.left": left, f"{module}.weight.right": right}
    apply(model, changes)


def write_records(folder: Path) -> None:
    """List an adapter's files with their hashes, the last thing that is written."""
    write_json(folder / RECORDS, _records(folder))


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and hash of those files of an adapter that are there, the list itself left out."""
    there = [file for file in (CONFIG, FACTORS, PROMPT) if (folder / file).is_file()]
    return file_records(folder, there)
