"""What the experiments share: answers in batches, means with intervals, stored figures.

Measurements that take minutes are stored in a JSON file, section by section.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragbook.corpus import Question
from ragbook.evaluation.statistics import cut_off
from ragbook.files import write_json
from ragbook.methods import Answer, Method


def answered(
    methods: Mapping[str, Method],
    questions: Sequence[Question],
    k: int = 5,
    batch: int = 16,
) -> dict[str, list[Answer]]:
    """Each method's answers from k passages a question, by the method's name in `methods`.

    All methods take one batch before the next, so that the pairs they share are encoded once.
    """
    out: dict[str, list[Answer]] = {name: [] for name in methods}
    for at in range(0, len(questions), batch):
        for name, method in methods.items():
            out[name] += method.answer(questions[at : at + batch], k)
    return out


def percent(value: Mapping[str, Any]) -> str:
    """A share as `mean_ci` returns it, in percent with its interval; see `cut_off`."""
    mean, low, high = (
        cut_off(share) for share in (value["mean"], *value["ci95"])
    )
    return f"{mean} [{low}, {high}]"


def points(value: Mapping[str, Any]) -> str:
    """A `paired_test`'s difference of shares, in percentage points with its interval."""
    mean, low, high = (
        cut_off(share, "+") for share in (value["difference"], *value["ci95"])
    )
    return f"{mean} [{low}, {high}]"


def in_points(difference: float, ci95: Sequence[float]) -> str:
    """The same without a sign before what is not negative, as it stands in a sentence."""
    return (
        f"{cut_off(difference)} points [{cut_off(ci95[0])}, {cut_off(ci95[1])}]"
    )


def relative(difference: float, ci95: Sequence[float]) -> str:
    """A relative difference in percent with its interval."""
    mean, low, high = (cut_off(v, "+") for v in (difference, *ci95))
    return f"{mean} [{low}, {high}]"


def write_sections(
    path: Path, sections: Mapping[str, Callable[[], Any]]
) -> None:
    """Measure the sections that `path` does not hold yet, and write the file after each.

    To measure a section again, delete it from the file first.
    """
    stored = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    )
    for name, section in sections.items():
        if name not in stored:
            stored[name] = section()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, stored, indent=1)
