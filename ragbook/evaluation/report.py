"""Stored figures: what takes minutes to measure is kept in a JSON file, section by section."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.evaluation.statistics import bootstrap_ci


def mean_ci(values: Sequence[float]) -> dict[str, Any]:
    """The mean of one value a question, with its 95 % bootstrap interval, as `mean` and `ci95`."""
    return {"mean": float(np.mean(values)), "ci95": list(bootstrap_ci(values))}


def measure(path: Path, sections: Mapping[str, Callable[[], Any]]) -> None:
    """Measure the sections that `path` does not hold yet, and write the file after each.

    A section to be measured anew is deleted from the file first.
    """
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name, section in sections.items():
        if name not in stored:
            stored[name] = section()
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
            partial.replace(path)
