"""Where a model computes, and how precisely: what `--device` and `--precision` mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ragbook.errors import InputError
from ragbook.machine import multiplies_bfloat16

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is a CUDA or Apple GPU where there is one, else the CPU.

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
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind) or (number and not (number.isdigit() and int(number) < count)):
        usable = ", ".join(kind for kind, here in there.items() if here)
        raise InputError(f"there is no device {name!r} here; choose auto or {usable}")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The number format of that name; `auto` is bfloat16 where the device multiplies in it, else
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
    """Whether the device multiplies matrices of this format faster than those of float32."""
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return dtype == torch.float16
    return dtype == torch.bfloat16 and bool(multiplies_bfloat16())


def warning(dtype: torch.dtype, device: torch.device) -> str | None:
    """What to tell somebody who asked for a slow format by name; None if it is not slow."""
    if is_quick(dtype, device):
        return None
    return (
        f"{str(dtype).removeprefix('torch.')} is slower than float32 on this {device.type}, which "
        "does not multiply in it; --precision auto chooses what is fast"
    )


def place(model: nn.Module, device: str = "cpu", precision: str = "float32") -> Any:
    """The model, moved to the device of that name and converted to the precision of that name."""
    where = choose_device(device)
    return model.to(where, choose_precision(precision, where))
