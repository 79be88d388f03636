"""The arguments that every recipe takes: a `Run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragbook.errors import InputError
from ragbook.files import remove_unfinished

if TYPE_CHECKING:
    import torch

    from ragbook.corpus import Corpus, Question


@dataclass(frozen=True)
class Run:
    """One run of a recipe.

    Parameters
    ----------
    out: folder for the weights.
    seed: of all random numbers.
    steps: the most steps of every stage, to try the recipe; None sets no limit.
    resume: go on with the run in `out`.
    own: your own passages and questions, on which the bundled models are trained further.
    device, precision: where it computes, and in which number format; see `ragbook.models.devices`.
    """

    out: Path
    seed: int = 0
    steps: int | None = None
    resume: bool = False
    own: tuple[Corpus, Iterable[Question]] | None = None
    device: str = "auto"
    precision: str = "auto"

    @property
    def work(self) -> Path:
        """Folder of checkpoints and logs."""
        return self.out / "work"

    @property
    def where(self) -> torch.device:
        """The device; InputError if there is no such."""
        from ragbook.models.devices import choose_device

        return choose_device(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the weights in forward and backward passes; InputError if there is
        no such, or training cannot use it."""
        from ragbook.models.devices import choose_precision, name_of

        dtype = choose_precision(self.precision, self.where)
        if name_of(dtype) == "float16":
            raise InputError(
                "Small gradients vanish in float16, so nothing is trained in it; choose bfloat16, "
                "float32 or auto."
            )
        return dtype

    def begin(self) -> None:
        """Create the folder, or clear it of what a killed run has left half written.

        Raises
        ------
        InputError: it holds a run already and `resume` is not set, or there is no such device or
            precision.
        """
        _ = self.dtype
        if self.work.exists() and not self.resume:
            raise InputError(
                f"{self.out} holds a run already; go on with --resume or name another folder."
            )
        self.out.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.out)

    def cut(self, length: int) -> int:
        """How many steps of a stage of `length` steps are taken."""
        return length if self.steps is None else min(self.steps, length)
