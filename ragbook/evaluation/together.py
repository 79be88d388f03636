"""What ``results.json`` says of methods beside each other: scores, intervals, paired tests and
agreement, all counted from the lines of ``predictions.jsonl``.

Questions without a known answer have no scores. They count for agreement, which needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ragbook.evaluation.lines import Prediction, scored
from ragbook.evaluation.metrics import normalize_answer
from ragbook.evaluation.statistics import bootstrap_intervals, paired_tests

SCORES = ("em", "f1", "contains")
"""The scores of an answer, each in 0..1."""

_Columns = dict[tuple[str, str], np.ndarray]


def together(
    predictions: Sequence[Prediction], names: Sequence[str], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The methods' scores, and how the methods differ.

    Parameters
    ----------
    predictions: one line a question, at least one.
    names: the methods, in the order of the results; resampling depends on it in the last digits.
    seed: of the bootstrap and of the permutation tests.

    Returns
    -------
    For each method its mean ``em``, ``f1`` and ``contains`` with their ``ci95``, None where no
    answer is known; and the entries ``paired`` and ``agreement`` of the results.
    """
    lines = scored(predictions)
    if not lines:
        nothing: dict[str, Any] = dict.fromkeys(SCORES)
        means = {name: nothing | {"ci95": dict.fromkeys(SCORES)} for name in names}
        return means, {"paired": [], "agreement": agreement(predictions, names, seed)}
    columns = {
        (name, metric): np.array([line["methods"][name][metric] for line in lines], float)
        for name in names
        for metric in SCORES
    }
    bounds = bootstrap_intervals(np.stack(list(columns.values()), axis=1), seed=seed)
    intervals = dict(zip(columns, bounds.tolist(), strict=True))
    means = {
        name: {
            **{metric: float(columns[name, metric].mean()) for metric in SCORES},
            "ci95": {metric: intervals[name, metric] for metric in SCORES},
        }
        for name in names
    }
    return means, {
        "paired": _paired(names, columns, seed),
        "agreement": agreement(predictions, names, seed),
    }


def _paired(names: Sequence[str], columns: _Columns, seed: int) -> list[dict[str, Any]]:
    """Every pair of methods on every score."""
    pairs = [(a, b, metric) for metric in SCORES for a, b in combinations(names, 2)]
    if not pairs:
        return []
    differences = np.stack([columns[a, m] - columns[b, m] for a, b, m in pairs], axis=1)
    return [
        {
            "a": a,
            "b": b,
            "metric": metric,
            "difference": test.difference,
            "ci95": list(test.ci95),
            "p": test.p,
        }
        for (a, b, metric), test in zip(pairs, paired_tests(differences, seed=seed), strict=True)
    ]


def agreement(
    predictions: Sequence[Prediction], names: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """For every two methods, the share of all questions to which both give the same answer, as
    normalised for exact match; two empty answers are the same. ``[{"a", "b", "share", "ci95"}]``,
    with 95 % bootstrap intervals."""
    pairs = list(combinations(names, 2))
    if not pairs:
        return []
    texts = {
        name: [normalize_answer(line["methods"][name]["text"]) for line in predictions]
        for name in names
    }
    same = np.array(
        [[x == y for x, y in zip(texts[a], texts[b], strict=True)] for a, b in pairs], float
    ).T
    bounds = bootstrap_intervals(same, seed=seed).tolist()
    return [
        {"a": a, "b": b, "share": share, "ci95": ci95}
        for (a, b), share, ci95 in zip(pairs, same.mean(axis=0).tolist(), bounds, strict=True)
    ]
