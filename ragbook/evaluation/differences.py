"""Two stored comparisons beside each other: which answers changed, and whether the scores differ by
more than the choice of the questions explains.

The second is compared with the first, on the questions that both asked. Corpus, reader, k and all
else may be others; `settings` lists what is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ragbook.errors import InputError
from ragbook.evaluation.comparison import Comparison
from ragbook.evaluation.lines import Prediction, is_scored, question_ids
from ragbook.evaluation.names import listed
from ragbook.evaluation.sheets import Cell, Sheet
from ragbook.evaluation.statistics import ALPHA, cut_off, holm, paired_tests

LOST, GAINED, OTHER, SAME = "right to wrong", "wrong to right", "other text", "same text"
CHANGES = (LOST, GAINED, OTHER)
"""What an answer can change by; another text that is as right or as wrong is ``other text``."""
SCORES = {"em": "EM", "f1": "F1"}
DIFFERS = "†"

Pair = tuple[str, Prediction, Prediction]
"""A question's id in the first comparison, and its line in both."""


def differences(
    a: Comparison, b: Comparison, methods: Sequence[tuple[str, str]], seed: int = 0
) -> dict[str, Any]:
    """How the answers and scores of `b` differ from those of `a`, as JSON.

    Parameters
    ----------
    methods: pairs of a method of `a` and one of `b`; see `shared_methods`.
    seed: of the bootstrap and of the permutation tests.

    Returns
    -------
    ``questions``: how many are in ``both``, ``only_a`` and ``only_b``; of those in both, how many
    are ``scored`` in both, and of how many of these the right answers are others
    (``other_answers``).
    ``settings``: `settings`. ``methods``: for each pair the names ``a`` and ``b``; ``em`` and
    ``f1``, each with the means ``a`` and ``b``, the mean ``difference`` b - a, its 95 % bootstrap
    interval ``ci95``, the paired permutation test's ``p`` and ``p_holm``, adjusted for all pairs of
    methods, or None where nothing is scored; ``counts`` of `CHANGES` and of the same text; and
    ``changed``, each changed answer with the question's id and text, ``change``, and the texts
    ``a`` and ``b``.

    Raises
    ------
    InputError: the comparisons share no question, or one lacks a method.
    """
    for comparison, names in zip((a, b), zip(*methods, strict=True), strict=True):
        comparison.only(names)  # or its refusal
    pairs = shared_questions(a, b)
    if not pairs:
        raise InputError(
            "The two comparisons have no question in common; compare two that asked the same ones."
        )
    scored = [pair for pair in pairs if all(map(is_scored, pair[1:]))]
    found = [_of_methods(pairs, own, other) for own, other in methods]
    for metric in SCORES:
        tests = _tests(scored, methods, metric, seed)
        for entry, test in zip(found, tests, strict=True):
            entry[metric] = test
    order = ("a", "b", *SCORES, "counts", "changed")
    return {
        "questions": {
            "both": len(pairs),
            "only_a": len(a.predictions) - len(pairs),
            "only_b": len(b.predictions) - len(pairs),
            "scored": len(scored),
            "other_answers": sum(
                set(one["answers"]) != set(other["answers"]) for _, one, other in scored
            ),
        },
        "settings": settings(a, b, methods),
        "methods": [{key: entry[key] for key in order} for entry in found],
    }


def shared_methods(a: Comparison, b: Comparison) -> list[tuple[str, str]]:
    """The methods that two comparisons share, in the order of the first.

    Raises InputError if there is none."""
    names, others = list(a.results["methods"]), list(b.results["methods"])
    both = [(name, name) for name in names if name in others]
    if not both:
        raise InputError(
            f"The comparisons share no method: {listed(names)} there, {listed(others)} here; name "
            "one of each with --methods."
        )
    return both


def shared_questions(a: Comparison, b: Comparison) -> list[Pair]:
    """The questions that both asked, in the order of `a`: those with the same id and
    text, and then those whose text alone is the same, if it stands once among the others of each.
    (A question without an id of its own has its number, which changes with the file.)"""
    lines_a = list(zip(question_ids(a.predictions), a.predictions, strict=True))
    lines_b = list(zip(question_ids(b.predictions), b.predictions, strict=True))
    by_both = {(one, line["question"]): line for one, line in lines_b}
    matched = {
        i: by_both.pop((one, line["question"]))
        for i, (one, line) in enumerate(lines_a)
        if (one, line["question"]) in by_both
    }
    rest = [line["question"] for i, (_, line) in enumerate(lines_a) if i not in matched]
    once_a = {text for text, n in Counter(rest).items() if n == 1}
    times_b = Counter(line["question"] for line in by_both.values())
    by_text = {
        line["question"]: line for line in by_both.values() if times_b[line["question"]] == 1
    }
    for i, (_, line) in enumerate(lines_a):
        if i not in matched and line["question"] in once_a & by_text.keys():
            matched[i] = by_text[line["question"]]
    return [(*lines_a[i], matched[i]) for i in sorted(matched)]


def settings(
    a: Comparison, b: Comparison, methods: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """What differs of how the comparisons were made, as far as their files tell: ``what``, and its
    value in ``a`` and ``b``."""
    pairs = [*_said(a, b)]
    for own, other in methods:
        one, two = a.results["methods"][own], b.results["methods"][other]
        pairs += [
            (f"{own}'s {key}" if own == other else key, one.get(key), two.get(key))
            for key in ("parameters", "device", "precision", "verbatim", "length_penalty")
        ]
    differing = [(what, one, two) for what, one, two in pairs if one != two]
    return [
        {"what": what, "a": one, "b": two}
        for what, one, two in differing
        if (what.removeprefix("--"), one, two) not in differing or not what.startswith("--")
    ]


def _said(a: Comparison, b: Comparison) -> list[tuple[str, Any, Any]]:
    """Each thing that both files may tell, and its two values."""
    one, two = a.results, b.results
    pairs = [
        (key, one["questions"].get(key), two["questions"].get(key)) for key in ("name", "split")
    ]
    pairs = [(f"questions' {key}", x, y) for key, x, y in pairs]
    for key in ("digest", "passages", "encoder"):
        first, second = ((each.get("index") or {}).get(key) for each in (one, two))
        pairs.append((f"index's {key}", first, second))
    pairs += [(key, one.get(key), two.get(key)) for key in ("k", "ragbook")]
    told_a, told_b = (each.setup.get("conditions", {}) for each in (a, b))
    told = {"questions", "index", "ragbook", "--k", "--seed", "--device", "--precision"}
    pairs += [(k, told_a[k], told_b[k]) for k in told_a if k in told_b and k not in told]
    return pairs


def _of_methods(pairs: Sequence[Pair], own: str, other: str) -> dict[str, Any]:
    """Which answers changed from one method to the other."""
    counts: dict[str, int] = dict.fromkeys((*CHANGES, SAME), 0)
    changed = []
    for question_id, one, two in pairs:
        first, second = one["methods"][own], two["methods"][other]
        change = _change(first, second)
        counts[change] += 1
        if change != SAME:
            changed.append(
                {
                    "id": question_id,
                    "question": one["question"],
                    "change": change,
                    "a": first["text"],
                    "b": second["text"],
                }
            )
    return {"a": own, "b": other, "counts": counts, "changed": changed}


def _change(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What has changed; where an answer is not scored in both, only its text can."""
    if None not in (a["em"], b["em"]) and a["em"] != b["em"]:
        return LOST if a["em"] else GAINED
    return SAME if a["text"] == b["text"] else OTHER


def _tests(
    scored: Sequence[Pair], methods: Sequence[tuple[str, str]], metric: str, seed: int
) -> list[dict[str, Any] | None]:
    """The difference of one score for each pair of methods."""
    if not scored:
        return [None] * len(methods)
    sides = [one for _, one, _ in scored], [two for _, _, two in scored]
    first, second = (
        np.array([[line["methods"][name][metric] for name in names] for line in lines])
        for lines, names in zip(sides, zip(*methods, strict=True), strict=True)
    )
    tests = paired_tests((second - first).astype(float), seed=seed)
    adjusted = holm([test.p for test in tests])
    return [
        {
            "a": mean_a,
            "b": mean_b,
            "difference": test.difference,
            "ci95": list(test.ci95),
            "p": test.p,
            "p_holm": p,
        }
        for mean_a, mean_b, test, p in zip(
            first.mean(axis=0).tolist(), second.mean(axis=0).tolist(), tests, adjusted, strict=True
        )
    ]


def score_sheet(found: Mapping[str, Any]) -> Sheet | None:
    """The differences of the scores as a table; None where nothing is scored."""
    if not found["questions"]["scored"]:
        return None
    rows = []
    for entry in found["methods"]:
        for metric, label in SCORES.items():
            test = entry[metric]
            low, high = (cut_off(end, "+") for end in test["ci95"])
            mark = DIFFERS if test["p_holm"] < ALPHA else ""
            rows.append(
                [
                    Cell(f"{_name(entry)} {label}"),
                    Cell(cut_off(test["a"])),
                    Cell(cut_off(test["b"])),
                    Cell(cut_off(test["difference"], "+"), f"[{low}, {high}]", mark),
                    Cell(f"{test['p_holm']:.4f}"),
                ]
            )
    return Sheet(
        ["method", "A", "B", "B - A", "p"],
        rows,
        f"Scores in % of the {found['questions']['scored']} questions that both asked and scored, "
        "rounded down; the difference with its 95% bootstrap interval; p of a "
        f"paired permutation test, Holm-adjusted for the methods; {DIFFERS} p < {ALPHA}. "
        f"{_verdict(found)}",
    )


def _verdict(found: Mapping[str, Any]) -> str:
    """What the tests support, and no more."""
    told = []
    for metric, label in SCORES.items():
        for way, sign in (("higher", 1), ("lower", -1)):
            names = [
                _name(entry)
                for entry in found["methods"]
                if entry[metric]["p_holm"] < ALPHA and sign * entry[metric]["difference"] > 0
            ]
            if names:
                told.append(f"{label} is {way} in B for {listed(names)}")
    if not told:
        return "No difference is supported by the tests."
    return f"Supported by the tests: {'; '.join(told)}; no other difference is."


def change_sheet(found: Mapping[str, Any]) -> Sheet:
    """How many answers changed in which way, as a table."""
    said = found["questions"]
    return Sheet(
        ["method", *CHANGES, SAME],
        [
            [Cell(_name(entry)), *(Cell(str(entry["counts"][kind])) for kind in (*CHANGES, SAME))]
            for entry in found["methods"]
        ],
        f"Answers to the {said['both']} questions that both asked ({said['only_a']} are only in A, "
        f"{said['only_b']} only in B), from A to B; {OTHER}: another one that is as right or as "
        "wrong.",
        wrapped=[*CHANGES, SAME],
    )


def _name(entry: Mapping[str, Any]) -> str:
    return entry["a"] if entry["a"] == entry["b"] else f"{entry['a']} / {entry['b']}"
