r"""What training changed in a model, in a form small enough to ship.

A matrix's change is kept as two factors, \(\Delta W \approx L R\) with \(L\) [out, r] and \(R\)
[r, in]: a low-rank adapter (Hu et al. 2022) gives them as they are, and of a matrix that was
trained whole the best approximation of rank r is taken (Eckart & Young 1936). Vectors and small
matrices are kept whole. Everything is bfloat16.

In a file, `NAME.left` and `NAME.right` are the factors of the tensor `NAME`, and `NAME.change` is a
whole difference.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ragbook.errors import InputError


def low_rank(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors [out, rank] and [rank, in] of a matrix, in the sum of squared differences;
    the singular values are shared equally, so that both have entries of a similar size."""
    left, values, right = torch.linalg.svd(change.float(), full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def changes(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], rank: int
) -> dict[str, Tensor]:
    """The differences of tensors of the same names, in the form of the module's docstring; tensors
    that did not change are left out."""
    out: dict[str, Tensor] = {}
    for name, new in after.items():
        change = new.detach().float().cpu() - before[name].detach().float().cpu()
        if not change.any():
            continue
        if change.dim() == 2 and rank * sum(change.shape) < change.numel():
            out |= factors(name, *low_rank(change, rank))
        else:
            out[f"{name}.change"] = change.bfloat16().contiguous()
    return out


def factors(name: str, left: Tensor, right: Tensor) -> dict[str, Tensor]:
    """The entries of a change whose factors are known: left [out, r], right [r, in]."""
    return {
        f"{name}.left": left.detach().cpu().bfloat16().contiguous(),
        f"{name}.right": right.detach().cpu().bfloat16().contiguous(),
    }


def are_changes(stored: Mapping[str, Tensor]) -> bool:
    """Whether a file's tensors are changes and not whole tensors."""
    return bool(stored) and all(name.endswith((".left", ".right", ".change")) for name in stored)


def changed_names(stored: Mapping[str, Tensor]) -> set[str]:
    """The names of the tensors that stored changes belong to."""
    return {name.rpartition(".")[0] for name in stored}


@torch.no_grad()
def apply(module: nn.Module, stored: Mapping[str, Tensor]) -> None:
    """Add stored changes to a module's parameters, in place.

    Raises
    ------
    InputError: the module has no parameter of one of the names, or one of another shape; a factor
        is missing or does not fit the other; or a change is no finite number.
    """
    parameters = dict(module.named_parameters())
    for name in sorted(changed_names(stored)):
        given = {kind: stored.get(f"{name}.{kind}") for kind in ("change", "left", "right")}
        whole, left, right = given.values()
        if whole is not None and left is None and right is None:
            change = whole.float()
        elif whole is None and _are_factors(left, right):
            change = left.float() @ right.float()  # type: ignore[union-attr]
        else:
            shapes = [f"{kind} {list(t.shape)}" for kind, t in given.items() if t is not None]
            raise InputError(
                f"the change of {name} is neither whole nor two factors ({', '.join(shapes)}); use "
                "the changes that were trained for the model"
            )
        if not change.isfinite().all():
            raise InputError(f"the change of {name} has infinite numbers or none; restore the file")
        if name not in parameters or parameters[name].shape != change.shape:
            raise InputError(
                f"the changes do not fit the model, which has no {name} of the shape "
                f"{list(change.shape)}; use those that were trained for it"
            )
        parameters[name].add_(change.to(parameters[name]))


def _are_factors(left: Tensor | None, right: Tensor | None) -> bool:
    """Whether both factors are there and can be multiplied."""
    if left is None or right is None:
        return False
    return left.dim() == right.dim() == 2 and left.shape[1] == right.shape[0]


def part(stored: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The changes whose names begin with `prefix` and a dot, without these."""
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in stored.items()
        if name.startswith(f"{prefix}.")
    }
