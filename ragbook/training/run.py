"""What a recipe is asked for: every recipe takes one `Run`."""

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
    out: folder of the weights.
    seed: of everything that is drawn.
    steps: cuts every stage to this many steps, to try the recipe.
    resume: go on from what is in `out`.
    own: passages and questions of one's own, to go on with from the bundled models.
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
        """Make the folder; InputError if a run stands in it that was not meant to go on."""
        if self.work.exists() and not self.resume:
            raise InputError(
                f"{self.out} holds a run already; go on with --resume or name another folder."
            )
        self.out.mkdir(parents=True, exist_ok=True)

    def cut(self, length: int) -> int:
        """How many steps of a stage of `length` are taken."""
        return length if self.steps is None else min(self.steps, length)
