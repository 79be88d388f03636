"""How the reading adapter of SmolLM2 that comes with the package was trained, in two parts.

`python -m book.experiments.reading_adapter OUT` trains both, the first into OUT/first and the second,
which starts from it, into OUT/second; each takes about an hour on one core. A part that was
stopped goes on where it was.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ragbook.models.smollm2 import SMOLLM2
from ragbook.training.lora import (
    APART,
    EACH,
    READING,
    TOGETHER,
    Recipe,
    train_adapter,
)
from ragbook.training.run import Run

PARTS = {
    "first": Recipe(),
    "second": Recipe(
        steps=400,
        negative=0.3,
        rate=4e-4,
        layouts=(EACH, EACH, TOGETHER, APART, APART, APART),
    ),
}
"""The first is `ragbook train lora`; the second has more fused caches, and more passages that do not
hold the answer."""


def main(out: Path) -> None:
    """Train both parts."""
    start = SMOLLM2
    for seed, (name, settings) in enumerate(PARTS.items()):
        folder = out / name
        run = Run(folder, seed=seed, resume=folder.exists())
        train_adapter(run, READING, start, settings)
        start = str(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
