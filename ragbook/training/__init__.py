"""The recipes behind `ragbook train`: from nothing to the files in `ragbook/models/weights`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.corpus import Corpus, QuestionSet


def _reader(
    out: Path,
    seed: int = 0,
    steps: int | None = None,
    resume: bool = False,
    own: tuple[Corpus, QuestionSet] | None = None,
) -> None:
    from ragbook.training import recipes

    _start(out, resume)
    recipes.readers(out, seed, steps, own=own)


def _lm(
    out: Path,
    seed: int = 0,
    steps: int | None = None,
    resume: bool = False,
    own: tuple[Corpus, QuestionSet] | None = None,
) -> None:
    from ragbook.training import lm

    if own is not None:
        raise InputError("The recipe lm has no questions; leave --corpus and --questions out.")
    _start(out, resume)
    lm.recipe(out, seed, steps)


def _start(out: Path, resume: bool) -> None:
    """Raises InputError if a run stands in `out` that was not meant to go on."""
    if (out / "work").exists() and not resume:
        raise InputError(f"{out} holds a run already; go on with --resume or name another folder.")
    out.mkdir(parents=True, exist_ok=True)


RECIPES: dict[str, Callable[..., None]] = {
    "reader": _reader,
    "lm": _lm,
    # These stand on the one reader: its recipe teaches the seq2seq and the span form at once.
    "realm": _reader,
    "rag": _reader,
    "fid": _reader,
}
"""Recipe by name: (out, seed, steps, resume, own) -> None.

`steps` cuts each stage short, to try it; `own` goes on from the bundled readers with passages and
questions of one's own."""
