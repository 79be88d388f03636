"""Six possible causes of answers that stop too early, and what the stored paired tests say of each.

`experiments.early_stops` changes one thing at a time and tests the change on the same questions. The
p-values are adjusted by Holm's method for all tests of one metric. Digits after the first are dropped, so
that no difference looks greater than it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ragbook.evaluation.names import called, capital, listed
from ragbook.evaluation.statistics import ALPHA, cut_off, holm, paired_test

from .report import relative

METHODS = ("rag-sequence", "rag-token", "fid")
WEIGHTS = ("same weights", "own training")
DECODING = {
    "the comparison": "held, without shares",
    "the passages": "held, one rule",
    "the rule": "free",
    "the mixture": "one passage",
}
"""The causes that are measured with both kinds of weights, and their changes in `stops.json`."""
UNCHANGED = {("the passages", "rag-sequence"), ("the passages", "fid")}
"""Only RAG-Token has one rule or several; there is nothing to test for the others."""
WITH = {
    "same weights": "with the same weights",
    "own training": "with its own training",
    "penalty 0.5": "with a penalty of 0.5",
    "penalty 1": "with a penalty of 1",
    "among all words": "after training among all words",
    "under the rule": "after training under the rule",
}


@dataclass(frozen=True)
class Effect:
    """How a share of answers differs from what it is without the change.

    Parameters
    ----------
    setting: the weights with which it was measured, or which change it is if there are two.
    n: questions.
    ci95, p: of the paired test, p adjusted; None if the file has no test.
    apart: that the two shares' own intervals do not overlap, for want of a test.
    """

    cause: str
    setting: str
    method: str
    n: int
    difference: float
    ci95: tuple[float, float] | None = None
    p: float | None = None
    apart: bool = False

    @property
    def significant(self) -> bool:
        return self.p is not None and self.p < ALPHA


def effects(stops: Mapping[str, Any], metric: str = "cut") -> list[Effect]:
    """All differences of one metric, with p-values adjusted for all that were tested.

    Parameters
    ----------
    stops: as `experiments.early_stops` writes it.
    metric: `cut`, the share of answers that are cut short, or `em`.
    """
    found = list(_found(stops, metric))
    tested = [e.p for e in found if e.p is not None]
    adjusted = iter(holm(tested))
    return [e if e.p is None else replace(e, p=next(adjusted)) for e in found]


def _found(stops: Mapping[str, Any], metric: str) -> Iterator[Effect]:
    for cause, way in DECODING.items():
        for weights in WEIGHTS:
            for method in METHODS:
                if (cause, method) not in UNCHANGED:
                    part = stops[weights][method]
                    where = cause, weights, method, stops["n"]
                    yield _effect(where, part, way, metric)
    for cause, section, changes in (
        ("the length", "length penalties", {"0.5": "penalty 0.5", "1": "penalty 1"}),
        ("the training", "objectives", {s: s for s in ("among all words", "under the rule")}),
    ):  # fmt: skip
        for way, setting in changes.items():
            for method in METHODS:
                part = stops[section][method]
                where = cause, setting, method, stops[section]["n"]
                yield _effect(where, part, way, metric)


def _effect(
    where: tuple[str, str, str, int],
    part: Mapping[str, Any],
    way: str,
    metric: str,
) -> Effect:
    """By the stored test, or if there is none by the intervals, against the training `none`."""
    if "against" in part[way]:
        test = part[way]["against"][metric]
        low, high = test["ci95"]
        return Effect(*where, test["difference"], (low, high), test["p"])
    now, before = part[way][metric], part["none"][metric]
    (low, high), (least, most) = now["ci95"], before["ci95"]
    apart = low > most or high < least
    return Effect(*where, now["mean"] - before["mean"], apart=apart)


def table(every: Sequence[Effect]) -> pd.DataFrame:
    """A row for each cause and setting: the differences in points with their intervals, a star where
    the test is significant, and one verdict for each cause."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for effect in every:
        first = effect.cause not in {cause for cause, _ in rows}
        row = rows.setdefault((effect.cause, effect.setting), {"n": effect.n})
        row[effect.method] = _cell(effect)
        if first:
            row["verdict"] = verdict(of_cause(every, effect.cause))
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame["verdict"] = frame["verdict"].fillna("")
    return frame.reindex(columns=["n", *METHODS, "verdict"]).fillna("–")


def _cell(effect: Effect) -> str:
    if effect.ci95 is None:
        return cut_off(effect.difference, "+")
    return relative(effect.difference, effect.ci95) + " *" * effect.significant


def of_cause(every: Sequence[Effect], cause: str) -> list[Effect]:
    """The effects of one cause."""
    return [effect for effect in every if effect.cause == cause]


def verdict(one: Sequence[Effect]) -> str:
    """Of one cause, in a few words: for which methods the share is significantly higher or lower
    with the change, if for any."""
    if all(effect.p is None for effect in one):
        apart = _directions([e for e in one if e.apart])
        return f"{apart} (intervals apart)" if apart else "not tested"
    return _directions([e for e in one if e.significant]) or "not significant"


def _directions(some: Sequence[Effect]) -> str:
    """ "higher: a and b; lower: c", or what there is of it."""
    ways = {
        "higher": _methods([e for e in some if e.difference > 0]),
        "lower": _methods([e for e in some if e.difference < 0]),
    }
    return "; ".join(f"{way}: {names}" for way, names in ways.items() if names)


def _methods(some: Sequence[Effect]) -> str:
    names = [name for name in METHODS if name in {e.method for e in some}]
    return listed([called(name) for name in names]) if names else ""


def summary(every: Sequence[Effect]) -> str:
    """How many tests are significant, of which causes and methods, and which way. No capital at its
    beginning and no full stop at its end."""
    tested = [e for e in every if e.p is not None]
    good = [e for e in tested if e.significant]
    if not good:
        return (
            f"none of the {len(tested)} paired tests is significant after "
            "Holm's correction"
        )
    names = dict.fromkeys(e.cause for e in good)
    each = [f"{cause} ({verdict(of_cause(good, cause))})" for cause in names]
    return (
        f"{len(good)} of the {len(tested)} paired tests "
        f"{'is' if len(good) == 1 else 'are'} significant after Holm's "
        f"correction: {listed(each)}"
    )


def whose(every: Sequence[Effect]) -> str:
    """Whose share the tests show to depend on any of the causes; a sentence."""
    methods = _methods([e for e in every if e.significant])
    if not methods:
        return "No method's share is shown to depend on any of the causes."
    if len({e.method for e in every if e.significant}) == 1:
        return (
            f"Only {methods}'s share is shown to depend on any of the causes."
        )
    return f"The shares of {methods} are shown to depend on at least one of the causes."


def in_words(one: Sequence[Effect], method: str, share: str) -> str:
    """What one cause does to one method: which way the share goes with each setting, how far, and
    what of it is significant; a sentence.

    Parameters
    ----------
    one: the effects of one cause.
    share: what is measured, as the sentence calls it.
    """
    first, second = own = [e for e in one if e.method == method]
    verbs = [_verb(e) for e in own]
    again = verbs[1] if verbs[0] != verbs[1] else ""
    joint = ", but" if set(verbs) == {"rises", "falls"} else " and"
    said = f"{share} {verbs[0]}{_by(first)}{joint} {again}{_by(second)}"
    return f"{capital(' '.join(said.split()))}; {_which(own)}."


def _verb(effect: Effect) -> str:
    if not effect.difference:
        return "stays the same"
    return "rises" if effect.difference > 0 else "falls"


def _by(effect: Effect) -> str:
    """How far, and with which setting."""
    where = f" {WITH[effect.setting]}"
    if not effect.difference:
        return where
    sign = math.copysign(1, effect.difference)
    by = f" by {cut_off(abs(effect.difference))} points"
    if effect.ci95 is not None:
        low, high = sorted(sign * bound for bound in effect.ci95)
        by += f" [{cut_off(low)}, {cut_off(high)}]"
    return by + where


def _which(own: Sequence[Effect]) -> str:
    """Which of one method's two differences are significant."""
    if own[0].p is None:
        apart = [e.apart for e in own]
        if all(apart):
            return "the intervals do not overlap that of the shared reader"
        if not any(apart):
            return "this was not tested"
        return f"only the interval {WITH[own[apart.index(True)].setting]} is clear of the shared reader's"
    good = [e for e in own if e.significant]
    if len(good) == len(own):
        return "both differences are significant"
    if not good:
        return "neither difference is significant"
    return f"only the difference {WITH[good[0].setting]} is significant"


def others(one: Sequence[Effect], method: str) -> str:
    """Which differences of the other methods are significant; a sentence, empty if none is."""
    good = [e for e in one if e.method != method and e.significant]
    if not good:
        return ""
    each = [
        f"{called(e.method)}'s {WITH[e.setting]} ({cut_off(e.difference, '+')} points)"
        for e in good
    ]
    verb = "is" if len(good) == 1 else "are"
    return (
        f"Of the other methods' differences, {listed(each)} {verb} significant."
    )


def room(every: Sequence[Effect], method: str) -> str:
    """The widest change of a method's share that its intervals leave possible, without a full stop:
    "changes from -3.0 to +8.6 points"."""
    own = [e.ci95 for e in every if e.method == method and e.ci95]
    low, high = min(low for low, _ in own), max(high for _, high in own)
    return f"changes from {cut_off(low, '+')} to {cut_off(high, '+')} points"


def cut_short(cut: Mapping[str, Sequence[float]]) -> str:
    """How many answers two methods cut short and what the paired test says, the greater number
    first. No full stop at its end.

    Parameters
    ----------
    cut: by the method's name, for every question 1 if the answer is cut short.
    """
    more, fewer = sorted(cut, key=lambda name: -sum(cut[name]))
    test = paired_test(cut[more], cut[fewer])
    low, high = (cut_off(bound) for bound in test.ci95)
    could = "is significant" if test.p < ALPHA else "could be chance"
    return (
        f"{called(more)} cuts {sum(cut[more]):.0f} of {len(cut[more])} answers short and "
        f"{called(fewer)} {sum(cut[fewer]):.0f}; the difference of {cut_off(test.difference)} "
        f"points [{low}, {high}] {could}"
    )
