r"""A comparison taken apart: by kind of question, method against method, and by probability.

Everything here is computed from the lines of ``predictions.jsonl``, so that any stored comparison
can be studied in these ways without running a method again. What asks whether answers are right
leaves out the questions without known answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.evaluation.lines import Prediction, gold_passages, scored
from ragbook.evaluation.metrics import normalize_answer
from ragbook.evaluation.statistics import mean_ci


def right(predictions: Sequence[Prediction]) -> dict[str, np.ndarray]:
    """For each method, which of its answers match exactly: bool [n], n the questions with known
    answers. Raises InputError if there is none."""
    lines = scored(predictions)
    if not lines:
        raise InputError("No question has a known answer, so that no answer is right or wrong.")
    return {
        name: np.array([line["methods"][name]["em"] for line in lines], dtype=bool)
        for name in lines[0]["methods"]
    }


def probabilities(predictions: Sequence[Prediction], name: str) -> np.ndarray:
    """A method's probability of its own answer to each question: float64 [n]; 0 where the stored
    logarithm is None."""
    stored = [line["methods"][name]["log_prob"] for line in predictions]
    return np.array([0.0 if value is None else math.exp(value) for value in stored])


def by_kind(
    predictions: Sequence[Prediction], questions: Sequence[Question]
) -> dict[str, dict[str, Any]]:
    """Exact match of every method on each kind of question (`Question.kind`), most frequent kind
    first: ``{kind: {"n": int, "em": {method: {"mean", "ci95"}}}}``.

    Raises InputError if a prediction belongs to a question that `questions` lacks.
    """
    kinds_of = {question.text: question.kind for question in questions}
    missing = [p["question"] for p in predictions if p["question"] not in kinds_of]
    if missing:
        raise InputError(
            f"The question {missing[0]!r} is not among the given questions; give the questions "
            "that the comparison used."
        )
    kinds = np.array([kinds_of[line["question"]] for line in scored(predictions)])
    names, counts = np.unique(kinds, return_counts=True)
    scores = right(predictions)
    return {
        str(kind): {
            "n": int(count),
            "em": {
                name: mean_ci(values[kinds == kind].tolist()) for name, values in scores.items()
            },
        }
        for count, kind in sorted(zip(counts, names, strict=True), reverse=True)
    }


def by_evidence(
    predictions: Sequence[Prediction], leave_one_out: bool = False
) -> dict[str, dict[str, Any]]:
    """Exact match where the heaviest passage is the gold one, where it is another although the gold
    one was retrieved, and where the gold one was not; for each method that reads passages:
    ``{method: {"gold" | "another" | "not retrieved": {"n", "mean", "ci95"}}}``.

    A passage weighs what the method's own evidence gives it or, with `leave_one_out`, what leaving
    it out costs; then only predictions count for which that was measured, and a passage without
    which the answer is impossible is the heaviest.
    """

    def weight(entry: Mapping[str, Any]) -> float:
        if not leave_one_out:
            return entry["weight"]
        return math.inf if entry["loo"] is None else entry["loo"]

    scores, lines = right(predictions), scored(predictions)
    out: dict[str, dict[str, Any]] = {}
    for name, values in scores.items():
        cases: dict[str, list[float]] = {"gold": [], "another": [], "not retrieved": []}
        for line, value in zip(lines, values, strict=True):
            evidence, gold = line["methods"][name]["evidence"], gold_passages(line)
            if not gold or not evidence or (leave_one_out and "loo" not in evidence[0]):
                continue
            heaviest = max(evidence, key=weight)["passage_id"]
            there = any(e["passage_id"] in gold for e in evidence)
            case = "gold" if heaviest in gold else "another" if there else "not retrieved"
            cases[case].append(float(value))
        if any(cases.values()):
            out[name] = {c: {"n": len(v), **mean_ci(v)} for c, v in cases.items() if v}
    return out


def agreement(predictions: Sequence[Prediction], names: Sequence[str]) -> np.ndarray:
    """The share of questions to which two methods give the same normalized answer: float64 [M, M],
    ones on the diagonal."""
    texts = [[normalize_answer(p["methods"][n]["text"]) for p in predictions] for n in names]
    return np.array(
        [[np.mean([a == b for a, b in zip(x, y, strict=True)]) for y in texts] for x in texts]
    )


def kappa(predictions: Sequence[Prediction], names: Sequence[str]) -> np.ndarray:
    r"""Cohen's kappa of being right, float64 [M, M]: agreement beyond chance,

    \[ \kappa = \frac{p_o - p_e}{1 - p_e}, \qquad
       p_e = \pi_a \pi_b + (1 - \pi_a)(1 - \pi_b), \]

    with \(p_o\) the share of questions on which both are right or both wrong, and \(\pi\) each
    method's share of right answers (Cohen 1960). It is 1 where both are always right or always
    wrong.
    """
    values = right(predictions)
    out = np.empty((len(names), len(names)))
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            observed = float(np.mean(values[a] == values[b]))
            pa, pb = float(values[a].mean()), float(values[b].mean())
            chance = pa * pb + (1 - pa) * (1 - pb)
            out[i, j] = 1.0 if chance == 1 else (observed - chance) / (1 - chance)
    return out


def shared(predictions: Sequence[Prediction], names: Sequence[str]) -> dict[str, Any]:
    """Of the named methods: on how many questions each is the only one that is right (``alone``),
    all are right (``all``), at least one is (``any``) and none is (``none``)."""
    values = right(predictions)
    table = np.array([values[name] for name in names])
    count = table.sum(axis=0)
    return {
        "n": len(count),
        "alone": {n: int((table[i] & (count == 1)).sum()) for i, n in enumerate(names)},
        "all": int((count == len(names)).sum()),
        "any": int((count > 0).sum()),
        "none": int((count == 0).sum()),
    }


def calibration(probability: ArrayLike, correct: ArrayLike, groups: int = 10) -> dict[str, Any]:
    r"""How well probabilities agree with the share of right answers. Answers are sorted by
    probability and cut into groups of equal size.

    Parameters
    ----------
    probability: [n], in 0..1, the method's probability of each of its answers.
    correct: bool [n], whether they are right.
    groups: number of groups.

    Returns
    -------
    ``groups``: for each, the mean ``probability``, the share that is right as ``mean`` with its
    ``ci95``, and ``n``; and ``error``, the expected calibration error (Naeini et al. 2015)

    \[ \mathrm{ECE} = \sum_g \frac{n_g}{n} \,
       \bigl| \overline{p}_g - \overline{\mathrm{right}}_g \bigr|. \]

    Raises
    ------
    InputError: there are fewer answers than groups.
    """
    p, r = np.asarray(probability, float), np.asarray(correct, float)
    if len(p) < groups:
        raise InputError(f"{len(p)} answers cannot be cut into {groups} groups; ask for fewer.")
    parts = np.array_split(np.argsort(p, kind="stable"), groups)
    out = [
        {"probability": float(p[g].mean()), "n": len(g), **mean_ci(r[g].tolist())} for g in parts
    ]
    error = sum(g["n"] * abs(g["probability"] - g["mean"]) for g in out) / len(p)
    return {"groups": out, "error": float(error)}


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """How well a number separates two groups: the probability that a value drawn from `positive`
    [n] is greater than one drawn from `negative` [m], ties counting half (Mann and Whitney 1947).
    """
    a, b = np.asarray(positive, float), np.sort(np.asarray(negative, float))
    below, upto = np.searchsorted(b, a, "left"), np.searchsorted(b, a, "right")
    return float(np.mean((below + upto) / 2) / len(b))


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of the (cost, score) points that no other beats, in the order of cost.

    A point beats another if it costs no more and scores no less, and is better in at least one of
    the two.
    """

    def beaten(name: str) -> bool:
        cost, score = points[name]
        return any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points.values())

    return sorted((n for n in points if not beaten(n)), key=lambda n: points[n][0])
