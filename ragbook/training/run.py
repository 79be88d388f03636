"""The arguments that every recipe takes: a `Run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragbook.errors import InputError

if TYPE_CHECKING:
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
    """

    out: Path
    seed: int = 0
    steps: int | None = None
    resume: bool = False
    own: tuple[Corpus, Iterable[Question]] | None = None

    @property
    def work(self) -> Path:
        """Folder of checkpoints and logs."""
        return self.out / "work"

    def begin(self) -> None:
        """Create the folder; InputError if it holds a run already and `resume` is not set."""
        if self.work.exists() and not self.resume:
            raise InputError(
                f"{self.out} holds a run already; go on with --resume or name another folder."
            )
        self.out.mkdir(parents=True, exist_ok=True)

    def cut(self, length: int) -> int:
        """How many steps of a stage of `length` steps are taken."""
        return length if self.steps is None else min(self.steps, length)
