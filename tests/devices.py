"""A pretended GPU, so that a tensor left behind on the CPU fails a test where there is no GPU.

Tensors of the pretended GPU say that they are on the device "meta", and hold their values on the
CPU. As on a real one, an operation on tensors of both devices is an error, and so is `numpy()`
without `cpu()`. What is computed there is computed here too, one by one the same operations; only
attention kernels, of which the CPU has its own, may be others.

    with pretended_gpu() as gpu:
        model.to(gpu)
        ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, is_dataclass
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("meta")
CPU = torch.device("cpu")

aten = torch.ops.aten
MIXED = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
"""What takes tensors of both devices on a GPU too: copies, and indices that are on the CPU."""


class OnGpu(torch.Tensor):
    """A tensor of the pretended GPU; `here` has its values."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> OnGpu:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=GPU,
        )

    def __init__(self, here: Tensor) -> None:
        self.here = here

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGpu({self.here})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = self.detach().clone()
            if isinstance(self, torch.nn.Parameter):
                copied = torch.nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]

    def tolist(self) -> Any:
        """The values; a GPU gives them too."""
        return self.here.tolist()

    def numpy(self, **_: Any) -> Any:
        """Refused, as by a GPU."""
        raise TypeError("a tensor on the GPU is no array; use Tensor.cpu() first")

    def new_tensor(self, data: Any, **options: Any) -> Tensor:  # type: ignore[override]
        """A tensor of these values, on the GPU too."""
        return torch.tensor(data, **{"dtype": self.dtype, **options}).to(GPU)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(_indices(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(_indices(key), value)

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _indices(key: Any) -> Any:
    """An index whose lists are tensors; on the device "meta" they would lose their values."""
    if isinstance(key, tuple):
        return tuple(map(_indices, key))
    return torch.tensor(key) if isinstance(key, list) else key


class _Mode(TorchDispatchMode):
    """Sees operations without a tensor of the GPU as well: those that make or move one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


class _Values(TorchFunctionMode):
    """`torch.tensor` on the device "meta" drops the values; here they come along."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            options = {name: value for name, value in kwargs.items() if name != "device"}
            return func(*args, **options).to(kwargs["device"])
        return func(*args, **kwargs)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation's result, computed on the CPU and put where it belongs."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in given if isinstance(tensor, OnGpu)]
    # A number without dimensions may come from anywhere.
    left = [tensor for tensor in given if not isinstance(tensor, OnGpu) and tensor.dim()]
    indexes = func in MIXED and (isinstance(args[0], OnGpu) or func is aten.copy_.default)
    if there and left and not indexes:
        raise RuntimeError(
            f"{func} got tensors on two devices: {tuple(there[0].shape)} on the GPU and "
            f"{tuple(left[0].shape)} on the CPU"
        )
    wanted, first = kwargs.get("device"), args[0] if args else None
    args, kwargs = tree_map(_brought_here, (args, kwargs))
    out = func(*args, **kwargs)
    if func is aten.copy_.default:
        return first
    if not (bool(there) if wanted is None else torch.device(wanted) == GPU):
        return out
    known = {id(tensor.here): tensor for tensor in there}

    def placed(each: Any) -> Any:
        if not isinstance(each, Tensor):
            return each
        written = known.get(id(each))  # what an operation writes into is what it was given
        return OnGpu(each) if written is None else written

    return tree_map(placed, out)


def _brought_here(value: Any) -> Any:
    if isinstance(value, OnGpu):
        return value.here
    if isinstance(value, Tensor) and value.device == GPU:
        assert not value.numel(), "a tensor was made past the pretended GPU, which has no values"
        return torch.empty_like(value, device=CPU)
    return CPU if isinstance(value, torch.device) and value == GPU else value


def _fused() -> list[str]:
    """Devices on which an optimizer updates all tensors in one operation."""
    return ["cpu", "cuda", GPU.type]


def assert_same(there: Any, here: Any, rel: float = 1e-3, abs: float = 1e-4) -> None:
    """What was found on one device is what was found on another: everything but rounding errors.

    Containers and dataclasses are compared by what they hold, and numbers nearly.
    """
    if is_dataclass(here) and not isinstance(here, type):
        there, here = astuple(there), astuple(here)
    if isinstance(here, Mapping):
        assert there.keys() == here.keys()
        for key in here:
            assert_same(there[key], here[key], rel, abs)
    elif isinstance(here, Sequence) and not isinstance(here, str | bytes):
        assert len(there) == len(here)
        for one, other in zip(there, here, strict=True):
            assert_same(one, other, rel, abs)
    elif isinstance(here, float):
        assert there == pytest.approx(here, rel, abs)
    else:
        assert there == here


@contextmanager
def pretended_gpu() -> Iterator[torch.device]:
    """Inside the block there is a GPU, which `auto` and `cuda` choose; yields its device.

    Models that were moved there must not be used after it.
    """
    from ragbook.models import devices

    usual = devices.choose_device

    def choose(name: str = "auto") -> torch.device:
        return GPU if name in ("auto", "cuda", str(GPU)) else usual(name)

    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that tied weights stay tied
    try:
        with (
            mock.patch.object(devices, "choose_device", choose),
            mock.patch("torch.optim.optimizer._get_fused_kernels_supported_devices", _fused),
            _Values(),
            _Mode(),
        ):
            yield GPU
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


@contextmanager
def real_gpu() -> Iterator[torch.device]:
    """The machine's own GPU."""
    yield torch.device("cuda")


on_gpus = pytest.mark.parametrize(
    "a_gpu",
    [
        pretended_gpu,
        pytest.param(
            real_gpu, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
        ),
    ],
)
"""Runs a test on the pretended GPU, and on a real one where there is one."""
