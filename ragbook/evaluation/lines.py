"""What a line of ``predictions.jsonl`` says of its question, also one that was stored by a version
that did not say it yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Prediction = Mapping[str, Any]


def is_scored(line: Prediction) -> bool:
    """Whether an answer is known, so that what the methods answered can be right or wrong."""
    return bool(line["answers"])


def scored(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The lines of the questions with a known answer, in their order."""
    return [line for line in predictions if is_scored(line)]


def gold_passages(line: Prediction) -> tuple[str, ...]:
    """The ids of the passages each of which counts as gold; none if none is known. A line names
    them where they are others than its one ``gold_passage``."""
    gold = line["gold_passage"]
    return tuple(line.get("gold_passages", () if gold is None else (gold,)))


def gold_rank(line: Prediction) -> int | None:
    """The rank, from 1, of the first gold passage among those ``retrieved``; None if none was
    retrieved or none is known."""
    if "gold_rank" in line:
        return line["gold_rank"]
    gold = gold_passages(line)
    ids = [each["passage_id"] for each in line.get("retrieved", ())]
    return next((rank for rank, one in enumerate(ids, 1) if one in gold), None)


def question_ids(predictions: Sequence[Prediction]) -> list[str]:
    """The questions' ids; the number, from 1, of one that has none."""
    return [line.get("id") or str(number) for number, line in enumerate(predictions, 1)]


def scored_number(results: Mapping[str, Any]) -> int:
    """The number of questions of ``results.json`` with a known answer: all, where it was stored
    before there were others."""
    return results["questions"].get("scored", results["questions"]["n"])
