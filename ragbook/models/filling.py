"""Copies stored tensors into a model, and refuses those that are not its own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor, nn

from ragbook.errors import InputError
from ragbook.models.model_files import a_few, check_numbers

ANY, NONE = r".*", r"(?!)"
"""Patterns for `fill`: all tensors, or none, may be missing."""


def fill(module: nn.Module, stored: Mapping[str, Tensor], known: str = ANY) -> None:
    """Copy tensors into the module by name.

    Parameters
    ----------
    stored: tensors of any floating type.
    known: a pattern of the names that may be missing, as the module has those from elsewhere.

    Raises
    ------
    InputError: the module has no tensor of one of the names, or one of another shape; a tensor is
        missing; or one has infinite numbers or what is no number.
    """
    places = module.state_dict()
    wrong = [n for n, v in stored.items() if n not in places or places[n].shape != v.shape]
    if wrong:
        raise InputError(
            f"the weights do not fit the model, which has no {a_few(sorted(wrong))} of that shape; "
            "use the weights that were trained for it"
        )
    absent = [n for n in places if n not in stored and not re.fullmatch(known, n)]
    if absent:
        raise InputError(
            f"the weights lack tensors of the model: {a_few(sorted(absent))}; use the weights that "
            "were trained for it"
        )
    module.load_state_dict(stored, strict=False)
    check_numbers(type(module).__name__, module)
