"""Copies stored tensors into a model, and refuses those that are not its own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from ragbook.errors import InputError
from ragbook.models.model_files import FLOATING, a_few, check_numbers, refusing, tensors_in

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
    check_numbers("a file of the weights", module)


def own_tensors(path: Path, again: str) -> dict[str, Tensor]:
    """The tensors of a file that this package wrote, float32; all of them are floating-point
    numbers.

    Parameters
    ----------
    again: half a sentence that says what to do about a damaged file.

    Raises
    ------
    InputError: the file is damaged, holds no tensors, or holds others than floating-point numbers.
    """
    kinds = {key: kind for key, (_, kind) in tensors_in(str(path.parent), path).items()}
    if not kinds:
        raise InputError(f"{path} holds no tensors; {again}")
    if odd := sorted(key for key, kind in kinds.items() if kind not in FLOATING):
        raise InputError(f"{path} holds what are no floating-point numbers ({a_few(odd)}); {again}")
    with refusing(lambda said: f"{path} is damaged ({said}); {again}"):
        return {key: value.float() for key, value in load_file(str(path)).items()}


def below(stored: Iterable[str], prefix: str = "") -> str:
    """A pattern for `fill`: what lies below the lowest layer of a BERT that is stored, its
    embeddings included. Training leaves lower layers as they are, and changes all of those above.

    Parameters
    ----------
    stored: names of tensors.
    prefix: of the BERT's names: `bert.`, or nothing.
    """
    start = re.escape(prefix)
    layers = [re.match(rf"{start}encoder\.layer\.(\d{{1,6}})\.", name) for name in stored]
    lowest = min((int(layer[1]) for layer in layers if layer), default=0)
    numbers = "|".join(str(number) for number in range(lowest)) or "(?!)"
    return rf"{start}embeddings\..*|{start}encoder\.layer\.(?:{numbers})\..*"
