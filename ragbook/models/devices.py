"""Where a model computes, and how precisely: what `--device` and `--precision` mean.

Tensors meet on the device of the model that reads them, and what leaves a model for a file, a table
or an index comes back to the CPU. A precision is either the format of a model's weights (`place`)
or, where weights and vectors stay float32, that of its matrix products alone (`products_in`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.errors import InputError
from ragbook.machine import DEVICES, PRECISIONS, multiplies_bfloat16

__all__ = [
    "DEVICES",
    "PRECISIONS",
    "choose_device",
    "choose_precision",
    "device_of",
    "is_quick",
    "least_precise",
    "name_of",
    "place",
    "placed_copy",
    "products_in",
    "warning",
]


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is a CUDA or Apple GPU if there is one, else the CPU.

    Parameters
    ----------
    name: one of `DEVICES`, or a certain GPU, as `cuda:1`.

    Raises
    ------
    InputError: this machine, or this build of torch, has no such device.
    """
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if there[kind]))
    kind, colon, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind) or (colon and not (number.isdecimal() and int(number) < count)):
        usable = ", ".join(kind for kind, here in there.items() if here)
        raise InputError(f"this machine has no device {name!r}; choose auto or {usable}")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of that name; `auto` is bfloat16 if the device multiplies in it, else
    float32.

    Raises
    ------
    InputError: there is no such format.
    """
    if name not in PRECISIONS:
        raise InputError(f"there is no precision {name!r}; choose from {', '.join(PRECISIONS)}")
    if name == "auto":
        return torch.bfloat16 if is_quick(torch.bfloat16, device) else torch.float32
    return getattr(torch, name)


def is_quick(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the device multiplies matrices of this format at least as fast as those of
    float32."""
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return dtype == torch.float16
    return dtype == torch.bfloat16 and bool(multiplies_bfloat16())


def warning(dtype: torch.dtype, device: torch.device) -> str | None:
    """A warning for a format that is slow on the device; None if it is not slow."""
    if is_quick(dtype, device):
        return None
    what = "a processor" if device.type == "cpu" else "a GPU"
    return (
        f"{name_of(dtype)} is slow on {what} that does not multiply in it, as this one; "
        "--precision auto chooses what is fast"
    )


def name_of(dtype: torch.dtype) -> str:
    """A format's name, as `--precision` takes it."""
    return str(dtype).removeprefix("torch.")


def least_precise(tensors: Iterable[Tensor]) -> torch.dtype:
    """The format with the fewest bytes among those of the tensors: a model that computes in
    bfloat16 may keep some of its weights in float32.

    Raises
    ------
    ValueError: there is no tensor.
    """
    return min((tensor.dtype for tensor in tensors), key=lambda dtype: dtype.itemsize)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device


def where(module: nn.Module) -> tuple[str, str]:
    """The device and the precision that a model computes with, by name: (`cpu`, `float32`)."""
    weights = list(module.parameters())
    return str(weights[0].device), name_of(least_precise(weights))


def place(model: nn.Module, device: str = "cpu", precision: str = "float32") -> Any:
    """The model, moved to the device of that name and converted to the precision of that name.

    What a model computes from its configuration alone (the frequencies of rotary positions) keeps
    its own format: at a thousandth token rounded ones are off by a whole radian.
    """
    where = choose_device(device)
    exact = [
        (module, name, buffer.to(where))
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    ]
    model.to(where, choose_precision(precision, where))
    for module, name, buffer in exact:
        setattr(module, name, buffer)
    return model


def placed_copy(
    holder: Any, models: Sequence[nn.Module], device: str, precision: str = "float32"
) -> Any:
    """A copy of an object that holds models (a reader, a language model), with the copies of these
    placed as by `place`. The object stays as it is; weights that need no change are shared."""
    where = choose_device(device)
    dtype = choose_precision(precision, where)
    copied: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to(where, dtype), p.requires_grad)
        for model in models
        for p in model.parameters()
    }
    other = deepcopy(holder, copied)
    for model in models:
        place(copied[id(model)], device, precision)  # what are no parameters
    return other


def products_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """A context in which matrices of float32 on the device are multiplied in that format; with
    float32 it ends another such context for as long as it lasts."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
