"""Draw the first page's figure: `python book/_tools/landing.py [RESULTS]`, after `make compare`.

RESULTS is a folder (default: book/results) with the two comparisons of the same questions:
`results.json`, each method as its paper trains it, and `same-weights.json`, the same weights for
all. The figure is `landing.png` beside them, and `landing-narrow.png` the same for a phone, which the
site shows there (`narrow_figures.py`).
"""

import json
import sys
from pathlib import Path
from typing import Any

from ragbook.figures import CheckedFigure, few_colours, own_and_shared

RESULTS = Path(__file__).resolve().parents[1] / "results"
NARROW = 4.2
"""Inches: the letters are of ordinary size on a phone."""


def draw(results: Path = RESULTS) -> Path:
    """Write `landing.png` and `landing-narrow.png` into the folder `results`; returns the former's
    path.

    Raises:
        ValueError: the two comparisons are not of the same questions and number of passages.
    """
    own, shared = (
        json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("results", "same-weights")
    )
    if _asked(own) != _asked(shared):
        raise ValueError(
            "results.json and same-weights.json compare different questions or numbers of "
            "passages; make the older one anew"
        )
    _save(own_and_shared(own, shared, NARROW), results / "landing-narrow.png")
    return _save(own_and_shared(own, shared), results / "landing.png")


def _save(figure: CheckedFigure, path: Path) -> Path:
    """Write a picture of few colours, which the first page loads sooner."""
    figure.save(path)
    path.write_bytes(few_colours(path.read_bytes(), 64))
    return path


def _asked(results: dict[str, Any]) -> list[Any]:
    """The questions and the number of passages, without what only later versions say of them."""
    return [
        results["k"],
        *(
            results["questions"][key]
            for key in ("name", "split", "n", "sha256")
        ),
    ]


if __name__ == "__main__":
    print(draw(*map(Path, sys.argv[1:2])))
