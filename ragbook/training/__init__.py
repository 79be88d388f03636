"""The recipes behind `ragbook train`: from nothing to the files in `ragbook/models/weights`."""

from __future__ import annotations

from collections.abc import Callable

from ragbook.training.run import Run

__all__ = ["RECIPES", "VARIED", "Run"]


def _dpr(run: Run, **varied: str) -> None:
    from ragbook.training import dpr

    dpr.recipe(run, **varied)


def _distil(run: Run, **varied: str) -> None:
    from ragbook.training import distil

    distil.recipe(run, **varied)


def _rag(run: Run) -> None:
    from ragbook.training import rag

    rag.recipe(run)


def _lora(run: Run, **varied: str) -> None:
    from ragbook.training import lora

    lora.recipe(run, **varied)


def _realm(run: Run, **varied: bool) -> None:
    from ragbook.training.realm import recipe

    recipe.recipe(run, **varied)


def _reader(run: Run) -> None:
    from ragbook.training.reader import recipe

    recipe.recipe(run)


def _methods(run: Run) -> None:
    from ragbook.training.reader import recipe

    recipe.methods_recipe(run)


def _lm(run: Run) -> None:
    from ragbook.training import lm

    lm.recipe(run)


RECIPES: dict[str, Callable[..., None]] = {
    "dpr": _dpr,
    "distil": _distil,
    "rag": _rag,
    "reader": _reader,
    "methods": _methods,
    "lm": _lm,
    "lora": _lora,
    "realm": _realm,
    "fid": _reader,  # FiD's reader is trained together with the others
}
"""Recipe by name: (run) -> None; some take further arguments, see `VARIED`. Each begins its run
itself, after it has checked its input."""

VARIED = {
    "similarity": ("dpr",),
    "loss": ("dpr",),
    "method": ("lora",),
    "reader": ("distil", "lora"),
    "encoder": ("dpr", "distil"),
    "pooling": ("dpr", "distil"),
    "query_encoder": ("dpr", "distil"),
    "query_prompt": ("dpr", "distil"),
    "passage_prompt": ("dpr", "distil"),
    "background": ("realm",),
}
"""The further arguments that recipes take: name of the argument -> names of its recipes."""
