"""The recipes behind `ragbook train`: from nothing to the files in `ragbook/models/weights`."""

from __future__ import annotations

from collections.abc import Callable

from ragbook.training.run import Run

__all__ = ["RECIPES", "Run"]


def _dpr(run: Run, **varied: str) -> None:
    from ragbook.training import dpr

    dpr.recipe(run, **varied)


def _rag(run: Run) -> None:
    from ragbook.training import rag

    rag.recipe(run)


def _reader(run: Run) -> None:
    from ragbook.training import recipes

    recipes.readers(run)


def _lm(run: Run) -> None:
    from ragbook.training import lm

    lm.recipe(run)


RECIPES: dict[str, Callable[..., None]] = {
    "dpr": _dpr,
    "rag": _rag,
    "reader": _reader,
    "lm": _lm,
    # These stand on the one reader: its recipe teaches the seq2seq and the span form at once.
    "realm": _reader,
    "fid": _reader,
}
"""Recipe by name: (run) -> None, `dpr` also with a `similarity` and a `loss`. Each begins its run
itself, once it has found nothing wrong with it."""
