"""How the reading adapter of SmolLM2 that comes with the package was trained, in three parts.

`python -m book.experiments.reading_adapter OUT` trains them one after the other, each from the one
before, into OUT/first, OUT/second and OUT/third; each takes about an hour on one core. A part that
was stopped goes on where it was.

When the first two were trained, the passages of fused caches had the same positions, and the
question was read once after all of them. The third was trained as they are read now. Trained
anew, all three read them so.
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
    "third": Recipe(
        steps=300,
        negative=0.3,
        rate=4e-4,
        layouts=(EACH, TOGETHER, APART, APART),
    ),
}
"""The first is `ragbook train lora`; the others have more fused caches, and more passages that do not
hold the answer."""


def main(out: Path) -> None:
    """Train all parts."""
    start = SMOLLM2
    for seed, (name, settings) in enumerate(PARTS.items()):
        folder = out / name
        run = Run(folder, seed=seed, resume=folder.exists())
        train_adapter(run, READING, start, settings)
        start = str(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
