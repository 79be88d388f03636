"""Draw the first page's figure: `python book/_tools/landing.py [RESULTS]`, after `make compare`.

RESULTS is a folder (default: book/results) with the two comparisons of the same questions:
`results.json`, each method trained by its own objective, and `same-weights.json`, the same weights for
all. The figure is `landing.png` beside them, and `landing-narrow.png` the same for a phone, which the
site shows there (`narrow_figures.py`).
"""

import json
import sys
from pathlib import Path
from typing import Any

from ragbook.figures import own_and_shared

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
    own_and_shared(own, shared, NARROW).save(results / "landing-narrow.png")
    return own_and_shared(own, shared).save(results / "landing.png")


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
