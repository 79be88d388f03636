"""Stored paired tests as sentences, so that what is written says what was measured.

All p-values are adjusted by Holm's method for all pairs of methods on one metric, and a difference
is claimed below 0.05, as in the tables. Further digits of a number are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from ragbook.errors import InputError
from ragbook.evaluation.names import called, capital, listed
from ragbook.evaluation.statistics import ALPHA, adjusted, cut_off

Results = Mapping[str, Any]

_BETTER = {
    "em": "{a} answers {x} % of the questions correctly, significantly more than {b} with {y} %",
    "f1": "{a} has an F1 of {x} %, significantly more than {b} with {y} %",
    "contains": (
        "{x} % of the answers of {a} contain a gold answer, significantly more than the {y} % of "
        "{b}"
    ),
}
_BESIDE = {
    "em": "{a} answers {x} % of the questions correctly and {b} {y} %",
    "f1": "{a} has an F1 of {x} % and {b} one of {y} %",
    "contains": "{x} % of the answers of {a} contain a gold answer, and {y} % of those of {b}",
}
_ALONE = {
    "em": "{a} answers {x} % of the questions correctly",
    "f1": "{a} has an F1 of {x} %",
    "contains": "{x} % of the answers of {a} contain a gold answer",
}
_MEASURES = {
    "em": "exact match",
    "f1": "F1",
    "contains": "the share of answers that contain a gold answer",
}
_PLACES = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


def in_words(results: Results, a: str, b: str, metric: str = "em") -> str:
    """What the paired test of two methods says, the better one first: how far it is ahead, with the
    95 % interval in points and the adjusted p-value, or that the difference could be chance.

    Parameters
    ----------
    results: as in ``results.json``.
    a, b: names of methods, in any order.
    metric: `em`, `f1` or `contains`.

    Raises
    ------
    InputError: the results hold no test of the two on this metric.
    """
    p = _p(results, a, b, metric)
    scores = {name: results["methods"][name][metric] for name in (a, b)}
    first, second = (a, b) if scores[a] >= scores[b] else (b, a)
    test = next(
        t for t in results["paired"] if {t["a"], t["b"]} == {a, b} and t["metric"] == metric
    )
    sign = 1 if test["a"] == first else -1
    low, high = sorted(sign * bound for bound in test["ci95"])
    points = f"{cut_off(sign * test['difference'])} points [{cut_off(low)}, {cut_off(high)}]"
    words = {
        "a": called(first),
        "b": called(second),
        "x": cut_off(scores[first]),
        "y": cut_off(scores[second]),
    }
    after = f"{p_in_words(p)} after Holm's correction"
    if p < ALPHA:
        sentence = f"{_BETTER[metric].format(**words)} ({points}, {after})."
    else:
        sentence = (
            f"{_BESIDE[metric].format(**words)}; the difference of {points} could be chance "
            f"({after})."
        )
    return capital(sentence)


def order(results: Results, metric: str = "em", named: bool = True) -> str:
    """All methods from best to worst, in words. A group of methods is put ahead of the next only if
    every one of them is significantly ahead of all that follow; then it is said which methods of
    one group the tests tell apart.

    Parameters and errors as in `in_words`, and

    named: whether the sentence names the metric; False where the text before has done so.
    """
    if metric not in _MEASURES:
        raise InputError(
            f"There is no sentence for {metric!r}; choose from {', '.join(_MEASURES)}."
        )
    methods = results["methods"]
    names = sorted(methods, key=lambda name: -methods[name][metric])
    if len(names) == 1:
        score = cut_off(methods[names[0]][metric])
        return capital(_ALONE[metric].format(a=called(names[0]), x=score) + ".")
    groups = in_groups(results, metric)
    leads = _leads(groups, _ahead(results, names, metric))
    by = f"by {_MEASURES[metric]}, " if named else ""
    of = f" in {_MEASURES[metric]}" if named else ""
    if len(groups) == 1:
        every = listed([called(name) for name in names])
        if leads:
            return f"Among {every}, only {leads} significant{of}."
        if len(names) == 2:
            return capital(f"{every} do not differ significantly{of}.")
        return f"No two of {every} differ significantly{of}."
    if len(groups) == 2:
        first, second = (listed([called(name) for name in group]) for group in groups)
        are = "is" if len(groups[0]) == 1 else "are"
        return capital(
            f"{first} {are} significantly ahead of {second}{of}.{_within_two(groups, leads)}"
        )
    return capital(f"{by}{_in_places(groups)}. {_between_places(groups, leads)}.")


def _within_two(groups: Sequence[Sequence[str]], leads: str) -> str:
    """What follows on two groups: the differences within them."""
    inner = [len(group) * (len(group) - 1) // 2 for group in groups]
    if leads:
        where = "these groups" if all(inner) else "the larger group"
        return f" Within {where}, only {leads} significant."
    if not any(inner):
        return ""
    return f" The other {'difference' if sum(inner) == 1 else 'differences'} could be chance."


def _in_places(groups: Sequence[Sequence[str]]) -> str:
    """Three groups or more, each with its place."""
    first, *between, last = (listed([called(name) for name in group]) for group in groups)
    ordinals = [*_PLACES[1:], *(f"at place {n}" for n in range(len(_PLACES) + 1, len(groups)))]
    then = [f"{group} {at}" for group, at in zip(between, ordinals, strict=False)]
    come = "comes" if len(groups[0]) == 1 else "come"
    mark = ";" if any(len(group) > 2 for group in groups[1:]) else ","
    places = f"{mark} ".join([f"{first} {come} first", *then])
    return f"{places}{mark if mark == ';' else ''} and {last} last"


def _between_places(groups: Sequence[Sequence[str]], leads: str) -> str:
    """Which differences between three groups or more, and within them, are significant."""
    if leads:
        return f"Differences between places are significant; within a place, only {leads}"
    alike = [[called(name) for name in group] for group in groups if len(group) > 1]
    if not alike:
        return "Every difference is significant"
    pairs = [f"{'between' if len(each) == 2 else 'among'} {listed(each)}" for each in alike]
    *others, last = pairs
    excepted = f"{', '.join(others)}, and {last}" if others else last
    return f"Every difference is significant except {excepted}"


def in_groups(results: Results, metric: str = "em") -> list[list[str]]:
    """The methods' names from best to worst, in groups: a new one begins where every method before
    is significantly ahead of all that follow. Parameters and errors as in `in_words`."""
    methods = results["methods"]
    names = sorted(methods, key=lambda name: -methods[name][metric])
    ahead = _ahead(results, names, metric)
    groups = [[names[0]]]
    for at, name in enumerate(names[1:], 1):
        if all((better, worse) in ahead for better in names[:at] for worse in names[at:]):
            groups.append([])
        groups[-1].append(name)
    return groups


def check_claim(results: Results, claim: str, metric: str = "em") -> None:
    """Hold a claim that somebody wrote against the stored test: `"fid > rag-token"`, the first is
    significantly ahead, or `"fid ~ realm"`, the difference could be chance.

    Raises
    ------
    ValueError: the test does not support the claim; the message is what it says instead.
    InputError: the claim has another form, or the results hold no such test.
    """
    parts = claim.split()
    if len(parts) != 3 or parts[1] not in (">", "~"):
        raise InputError(f"{claim!r} is no claim; write 'a > b' or 'a ~ b' with methods' names.")
    a, relation, b = parts
    differ = _p(results, a, b, metric) < ALPHA
    first = results["methods"][a][metric] > results["methods"][b][metric]
    if differ != (relation == ">") or (differ and not first):
        raise ValueError(f"{claim!r} is not what was measured: {in_words(results, a, b, metric)}")


def _ahead(results: Results, names: Sequence[str], metric: str) -> set[tuple[str, str]]:
    """The pairs of which the tests put one ahead, the better one first, as `names` are sorted."""
    return {pair for pair in combinations(names, 2) if _p(results, *pair, metric=metric) < ALPHA}


def _p(results: Results, a: str, b: str, metric: str) -> float:
    """The adjusted p-value of two methods."""
    try:
        return adjusted(results["paired"], metric)[frozenset((a, b))]
    except KeyError:
        raise InputError(
            f"The results hold no paired test of {a!r} and {b!r} on {metric!r}; compare both on "
            "the same questions."
        ) from None


def p_in_words(p: float) -> str:
    """A p-value as sentences have it, "p = 0.023", cut off; "p < 0.001" if it is less than that."""
    if p < 0.001:
        return "p < 0.001"
    if p >= 1:
        return "p = 1"
    digits = 2 if p >= 0.1 else 3
    return f"p = {math.floor(round(p * 10**digits, 6)) / 10**digits:.{digits}f}"


def _leads(groups: Sequence[Sequence[str]], ahead: set[tuple[str, str]]) -> str:
    """The pairs within groups of which one is ahead, as "the lead of a over b and c is", or "the
    leads of a over c and d and of b over d are"; empty if there is none."""
    behind: dict[str, list[str]] = {}
    for group in groups:
        for a, b in combinations(group, 2):
            if (a, b) in ahead:
                behind.setdefault(called(a), []).append(called(b))
    if not behind:
        return ""
    leads = [f"of {a} over {listed(others)}" for a, others in behind.items()]
    if len(leads) == 1:
        return f"the lead {leads[0]} is"
    return f"the leads {', '.join(leads[:-1])} and {leads[-1]} are"
