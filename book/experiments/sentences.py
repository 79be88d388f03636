"""Stored differences and curves as sentences, so that a new measurement brings new words.

`ragbook.evaluation.words` does so for a comparison's paired tests. This is for what the chapters
measure beside it. Shares are cut off and never rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ragbook.evaluation.errors import LABELS
from ragbook.evaluation.names import called, listed
from ragbook.evaluation.statistics import cut_off

from .report import in_points, relative


def compared(test: Mapping[str, Any], a: str, b: str) -> str:
    """What the paired test of a - b says: which of the two is ahead and how far, in points with the
    95 % interval, or which is above and that the interval includes zero. No full stop at its end.

    Parameters
    ----------
    test: `difference` and `ci95` of shares, as `paired_test` gives them.
    a, b: what was compared, as a sentence calls it.
    """
    low, high = test["ci95"]
    if low > 0:
        return f"{a} is ahead of {b} by {_points(test, 1)}"
    if high < 0:
        return f"{b} is ahead of {a} by {_points(test, -1)}"
    zero = "an interval that includes zero"
    if test["difference"] == 0:
        return (
            f"{a} and {b} have the same mean, {_points(test, 1)} apart, {zero}"
        )
    if test["difference"] > 0:
        return f"{a} is {_points(test, 1)} above {b}, {zero}"
    return f"{b} is {_points(test, -1)} above {a}, {zero}"


def _points(test: Mapping[str, Any], sign: int) -> str:
    low, high = sorted(sign * bound for bound in test["ci95"])
    return in_points(sign * test["difference"], (low, high))


def course(name: str, by_k: Mapping[str, Mapping[str, Any]]) -> str:
    """How a share goes with the number of passages: at the least number, at its highest point and
    at the greatest number, without intervals and without a full stop.

    Parameters
    ----------
    by_k: `mean` for every number of passages.
    """
    ks = sorted(by_k, key=int)
    first, last = ks[0], ks[-1]
    best = max(ks, key=lambda k: (by_k[k]["mean"], -int(k)))
    value = {k: cut_off(by_k[k]["mean"]) for k in ks}
    begins = f"{name} reaches {value[first]} % with {_passages(first)}"
    ends = f"{value[last]} % with {_passages(last)}"
    if best == last:
        return f"{begins} and its highest value, {value[last]} %, with {_passages(last)}"
    if best == first:
        return f"{begins}, its highest value, and {ends}"
    return (
        f"{begins}, its highest value, {value[best]} %, with {best}, and {ends}"
    )


def _passages(k: str) -> str:
    return "one passage" if k == "1" else f"{k} passages"


def ranked(shares: Mapping[str, float]) -> str:
    """Names with their shares in percent, the greatest first: "a 12.0 %, b 3.4 % and c 0.0 %"."""
    names = sorted(shares, key=lambda name: -shares[name])
    return listed([f"{name} {cut_off(shares[name])} %" for name in names])


def between(shares: Sequence[float]) -> str:
    """The range of some shares: "12.0 to 34.5 %", or one figure if all are the same."""
    low, high = cut_off(min(shares)), cut_off(max(shares))
    return f"{low} %" if low == high else f"{low} to {high} %"


def perplexity_changed(
    what: str,
    difference: float,
    ci95: Sequence[float],
    further: bool = False,
) -> str:
    """How a perplexity differs from another's, in percent with its interval: that `what` lowers or
    raises it, or that the interval contains zero. Cut off towards zero. No full stop at its end.

    Parameters
    ----------
    difference, ci95: relative, -0.1 for 10 % lower.
    further: whether the other perplexity was itself the result of a change.
    """
    low, high = ci95
    if low <= 0 <= high:
        return (
            f"{what} changes the perplexity by {relative(difference, ci95)} %, an interval that "
            "contains zero"
        )
    verb = "lowers" if high < 0 else "raises"
    shares = (abs(difference), *sorted((abs(low), abs(high))))
    mean, least, most = (
        f"{math.trunc(round(1000 * share, 6)) / 10:.1f}" for share in shares
    )
    by = "by a further" if further else "by"
    return f"{what} {verb} the perplexity {by} {mean} % [{least}, {most}]"


def widest_error(results: Mapping[str, Any], names: Sequence[str]) -> str:
    """Which kind of error separates the named methods most: the lowest and the highest share of
    it, and the widest range of any other kind. No full stop at its end.

    Parameters
    ----------
    results: as in ``results.json``; shares are of all its questions.
    """
    n = results["questions"]["n"]
    shares = {
        kind: {
            name: results["methods"][name]["errors"][kind] / n for name in names
        }
        for kind in LABELS
        if kind != "exact"
    }
    ranges = {
        kind: max(each.values()) - min(each.values())
        for kind, each in shares.items()
    }
    first, second = sorted(ranges, key=lambda kind: -ranges[kind])[:2]
    low, high = (
        pick(shares[first], key=lambda name: shares[first][name])
        for pick in (min, max)
    )
    return (
        f"the kind of error whose share differs most is *{LABELS[first]}*, from "
        f"{cut_off(shares[first][low])} % ({called(low)}) to {cut_off(shares[first][high])} % "
        f"({called(high)}); the next, *{LABELS[second]}*, spans {cut_off(ranges[second])} points"
    )
