"""Stored differences and curves as sentences, so that a new measurement brings new words.

`ragbook.evaluation.words` does so for a comparison's paired tests. This is for what the chapters
measure beside it. Shares and differences are printed by `cut_off`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ragbook.evaluation.errors import LABELS
from ragbook.evaluation.names import called, listed
from ragbook.evaluation.statistics import ALPHA, cut_off, holm
from ragbook.evaluation.words import p_in_words

from .report import in_points, relative


def compared(test: Mapping[str, Any], a: str, b: str) -> str:
    """What the paired test of a - b says: which of the two is ahead and how far, in points with the
    95 % interval, or which is above and that this could be chance. No full stop at its end.

    Parameters
    ----------
    test: `difference` and `ci95` of shares, as `paired_test` gives them, and `p` if it is known.
    a, b: what was compared, as a sentence calls it.
    """
    first, second, sign = (a, b, 1) if test["difference"] >= 0 else (b, a, -1)
    by = _points(test, sign)
    if _significant(test):
        return f"{first} is ahead of {second} by {by}"
    p = f" ({p_in_words(test['p'])})" if "p" in test else ""
    if test["difference"] == 0:
        return f"{a} and {b} have the same mean, with a difference of {by}{p}"
    return f"{first} is {by} above {second}, which could be chance{p}"


def compared_with_each(a: str, tests: Mapping[str, Mapping[str, Any]]) -> str:
    """What the paired tests of `a` with several others say, in one sentence: of which it is ahead,
    which are ahead of it, and which differences could be chance. No full stop at its end.

    Parameters
    ----------
    a: what was compared with each, as a sentence calls it.
    tests: by the name of the other one; as in `compared`, of a minus the other, with `p`, which is
        adjusted by Holm's method for these tests.
    """
    ps = holm([test["p"] for test in tests.values()])
    ahead, behind, alike = [], [], []
    for (b, test), p in zip(tests.items(), ps, strict=True):
        sign = 1 if test["difference"] >= 0 else -1
        if not _significant({**test, "p": p}):
            alike.append(f"{b} ({_points(test, sign)})")
        elif sign > 0:
            ahead.append(f"of {b} by {_points(test, 1)}")
        else:
            behind.append(f"{b} by {_points(test, -1)}")
    it, its, said = a, f"of {a}", []
    if ahead:
        said.append(f"{it} is ahead {listed(ahead)}")
        it, its = "it", ""
    if behind:
        said.append(f"{it} is behind {listed(behind)}")
        its = ""
    if alike:
        word = "difference" if len(alike) == 1 else "differences"
        said.append(
            f"{f'the {word} {its}' if its else f'its {word}'} from {listed(alike)} could be chance"
        )
    return "; ".join(said)


def who(names: Sequence[str], n: int, one: str, many: str) -> str:
    """Which of `n` things do something, with a verb that agrees: "none has", "only *a*
    has", "*a* and *b* have", "all five have".

    Parameters
    ----------
    names: those that do, of the `n`.
    one, many: the verb for one and for several.
    """
    if not names:
        return f"none {one}"
    if len(names) == n > 1:
        return f"{'both' if n == 2 else f'all {counted(n)}'} {many}"
    if len(names) == 1:
        return f"only *{names[0]}* {one}"
    return f"{listed([f'*{name}*' for name in names])} {many}"


def counted(n: int) -> str:
    """A number in words up to nine, in figures from ten on."""
    return _NUMBERS[n] if n < len(_NUMBERS) else f"{n:,}"


_NUMBERS = (
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
)


def _significant(test: Mapping[str, Any]) -> bool:
    """Whether the interval excludes zero and the p-value, where there is one, is below 0.05."""
    low, high = test["ci95"]
    return (low > 0 or high < 0) and test.get("p", 0) < ALPHA


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
    value = {k: f"{cut_off(by_k[k]['mean'])} %" for k in ks}
    if len(ks) == 1:
        return f"{name} is at {value[first]} with {_passages(first)}"
    if best == first:
        return (
            f"{name} is highest with {_passages(first)}, at {value[first]}, and is at "
            f"{value[last]} with {_passages(last)}"
        )
    begins = f"{name} goes from {value[first]} with {_passages(first)}"
    if best == last:
        return f"{begins} to its highest value, {value[last]}, with {last}"
    return f"{begins} up to {value[best]} with {best}, and is at {value[last]} with {last}"


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
    raises it, or that the change could be chance. Cut off towards zero. No full stop at its end.

    Parameters
    ----------
    difference, ci95: relative, -0.1 for 10 % lower.
    further: whether the other perplexity was itself the result of a change.
    """
    low, high = ci95
    if low <= 0 <= high:
        return (
            f"{what} changes the perplexity by {relative(difference, ci95)} %, "
            "which could be chance"
        )
    verb = "lowers" if high < 0 else "raises"
    shares = (abs(difference), *sorted((abs(low), abs(high))))
    mean, least, most = map(cut_off, shares)
    by = "by a further" if further else "by"
    return f"{what} {verb} the perplexity {by} {mean} % [{least}, {most}]"


def widest_errors(
    results: Mapping[str, Any], names: Sequence[str]
) -> dict[str, str]:
    """Which kind of error separates the named methods most: the `kind`, the methods with the
    `lowest` and the `highest` share of it, and how many points the `next` kind spans.

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
    return {
        "kind": LABELS[first],
        "lowest": f"{cut_off(shares[first][low])} % ({called(low)})",
        "highest": f"{cut_off(shares[first][high])} % ({called(high)})",
        "next": f"{LABELS[second]}, {cut_off(ranges[second])} points",
    }
