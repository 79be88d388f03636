"""Methods added to a stored comparison: the others are not run again, and what is said of methods
beside each other is counted anew, as if all had been compared at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragbook.errors import InputError
from ragbook.evaluation.comparison import Comparison
from ragbook.evaluation.cut import Cut
from ragbook.evaluation.together import together

_RETRIEVED = ("gold_passages", "gold_rank", "retrieved")


def appended(before: Comparison, added: Comparison) -> Comparison:
    """The comparison of the methods of both, those of `before` first. All but the times is what one
    comparison of all these methods would have found.

    Raises
    ------
    InputError: a method is in both, or the two were asked other questions or in another way, as far
        as their results and setups tell.
    """
    check_names(before, list(added.results["methods"]))
    ours, theirs = before.results, added.results
    for key in ("questions", "k", "seed", "index"):
        a, b = ours[key], theirs[key]
        if a != b and not (key == "index" and None in (a, b)):
            raise InputError(_differ(key, a, b))
    check_conditions(before.setup, added.setup)
    lines = [_joined(a, b) for a, b in zip(before.predictions, added.predictions, strict=True)]
    entries: dict[str, dict[str, Any]] = {**ours["methods"], **theirs["methods"]}
    scores, beside = together(lines, list(entries), ours["seed"])
    cut = Cut.of(before.setup).joined(Cut.of(added.setup))
    results = {
        **ours,
        "index": theirs["index"] if ours["index"] is None else ours["index"],
        **cut.numbers(),
        "gold_missing": (
            theirs["gold_missing"] if ours["gold_missing"] is None else ours["gold_missing"]
        ),
        "methods": {name: entry | scores[name] for name, entry in entries.items()},
        **beside,
    }
    setup: dict[str, Any] = {"cut": cut.as_json()}
    if "conditions" in before.setup or "conditions" in added.setup:
        conditions = (each.setup.get("conditions", {}) for each in (before, added))
        setup["conditions"] = {key: value for one in conditions for key, value in one.items()}
    return Comparison(results, lines, setup)


def check_names(before: Comparison, names: list[str]) -> None:
    """Raise InputError if a method was compared already."""
    for name in names:
        if name in before.results["methods"]:
            raise InputError(
                f"{name} is among the methods that were compared already; leave it out, or compare "
                "it into another folder."
            )


def check_conditions(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError, which names what differs, unless two comparisons' ``conditions``
    (:func:`ragbook.evaluation.identity.conditions`) are the same."""
    a, b = before.get("conditions"), now.get("conditions")
    if b is None:
        return  # the caller knows what is compared
    if a is None:
        raise InputError(
            "The stored comparison does not say with what settings it was made, so nothing can be "
            "added to it; compare anew."
        )
    for key in (key for key in b if key in a):  # others are followed by the methods of one alone
        if a[key] != b[key]:
            raise InputError(_differ(key, a[key], b[key]))


def _differ(what: str, a: Any, b: Any) -> str:
    return (
        f"{what} was {_short(what, a)} in the stored comparison and is {_short(what, b)} now; "
        "methods can only be added under the same conditions."
    )


def _short(what: str, value: Any) -> str:
    if value is None:
        return "not given"
    if what == "questions":  # by name, split, hash of the questions, and hash of ids and gold
        parts = value.values() if isinstance(value, dict) else value
        return ", ".join(str(part)[:40] for part in parts)
    if what in ("passages", "index"):
        digest = value["digest"] if isinstance(value, dict) else value
        return f"that of SHA-256 {digest[:12]}..."
    said = str(value)
    return said if len(said) <= 120 else f"{said[:120]}..."


def _joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """A question's line with the methods of both. What was retrieved is what the first method that
    reads passages found."""
    for key in ("id", "question", "answers", "gold_passage"):
        if a[key] != b[key]:
            raise InputError(
                _differ(f"the {key} of the question {a['question']!r}", a[key], b[key])
            )
    shown = a if a["retrieved"] else b
    named = {key: shown[key] for key in _RETRIEVED if key in shown}
    head = {key: a[key] for key in ("id", "question", "answers", "gold_passage")}
    return {**head, **named, "methods": {**a["methods"], **b["methods"]}}
