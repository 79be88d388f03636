"""What the papers claim of the order of the methods, and what stored tests say of it.

Everything here is made from stored paired tests, so that another table brings other words. p-values
are adjusted by Holm's method as in the tables, and a difference is claimed below 0.05.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from ragbook.errors import InputError
from ragbook.evaluation.names import called, capital, listed
from ragbook.evaluation.statistics import (
    ALPHA,
    adjusted,
    cut_off,
    holm,
    paired_test,
)
from ragbook.evaluation.tables import BASELINE

from .report import in_points, points, relative

FOUR = ("realm", "rag-sequence", "rag-token", "fid")
"""The methods that their papers train to answer from passages."""
READ_ALIKE = ("in-context", "rag-sequence", "rag-token", "fid")
"""With the same weights these differ only in how they combine passages and in a length penalty."""

VERDICTS = {1: "as claimed", 0: "open", -1: "the other way round"}
"""What a test says of a claim: borne out, could be chance, or refuted."""

Results = Mapping[str, Any]


def of_seeds(trained: Mapping[str, Any]) -> dict[str, Any]:
    """`trained.json` in the form of ``results.json``, as far as paired tests of exact match go."""
    methods = {
        name: {"em": scores["em"]["mean"]}
        for name, scores in trained["methods"].items()
    }
    return {"methods": methods, "paired": trained["paired"]}


def among(results: Results, names: Sequence[str]) -> dict[str, Any]:
    """The same results with the named methods only. Their p-values stay adjusted for all pairs."""
    methods = {
        name: entry
        for name, entry in results["methods"].items()
        if name in names
    }
    return {**results, "methods": methods}


def direction(results: Results, a: str, b: str) -> int:
    """1 if the stored test of exact match puts `a` ahead of `b`, -1 if behind, 0 if it cannot tell
    them apart."""
    difference, _, p = _difference(results, a, b)
    return 0 if p >= ALPHA else 1 if difference > 0 else -1


def ahead(results: Results, a: str, b: str) -> str:
    """A stored test of exact match in a few words: which of the two is ahead and by how much, or
    how much it is above the other where the difference could be chance."""
    first, second = (a, b) if _difference(results, a, b)[0] >= 0 else (b, a)
    difference, ci95, p = _difference(results, first, second)
    by = in_points(difference, ci95)
    if p < ALPHA:
        return f"{called(first)} ahead of {called(second)} by {by}"
    return f"{called(first)} {by} above {called(second)}"


def held_against(
    tables: Mapping[str, Results], claim: tuple[str, str]
) -> list[str]:
    """What each table says of the claim that the first method is ahead of the second: one line for
    every table that has both."""
    return [
        f"{label}: {VERDICTS[direction(results, *claim)]}; {ahead(results, *claim)}"
        for label, results in tables.items()
        if set(claim) <= set(results["methods"])
    ]


def turned_over(
    first: Results, second: Results, names: Sequence[str] = FOUR
) -> dict[str, list[str]]:
    """The pairs of the named methods, by how the tests of two comparisons put them: `alike`, `the
    other way round`, `only in the first`, `only in the second`, `in neither`. A pair is written in
    the order of the comparison that tells it apart, the first one's where both do; pairs with the
    same better ones or the same worse ones are written together."""
    kinds = (
        "alike",
        "the other way round",
        "only in the first",
        "only in the second",
    )
    found: dict[str, list[tuple[str, str]]] = {kind: [] for kind in kinds}
    alike = []
    for a, b in combinations(names, 2):
        one, other = (direction(results, a, b) for results in (first, second))
        if not one and not other:
            alike.append(f"{called(a)} and {called(b)}")
            continue
        pair = (a, b) if (one or other) > 0 else (b, a)
        if one and other:
            kind = "alike" if one == other else "the other way round"
        else:
            kind = "only in the first" if one else "only in the second"
        found[kind].append(pair)
    out = {kind: _written_together(pairs) for kind, pairs in found.items()}
    return {**out, "in neither": alike}


def _written_together(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Pairs as "A and B ahead of C and D", the better ones first."""
    behind: dict[str, list[str]] = {}
    for a, b in pairs:
        behind.setdefault(called(a), []).append(called(b))
    ahead: dict[tuple[str, ...], list[str]] = {}
    for a, others in behind.items():
        ahead.setdefault(tuple(others), []).append(a)
    return [
        f"{listed(names)} ahead of {listed(others)}"
        for others, names in sorted(
            ahead.items(), key=lambda each: -len(each[0])
        )
    ]


def gains(
    by_k: Mapping[Any, Mapping[str, Any]],
    names: Sequence[str],
    steps: Sequence[tuple[Any, Any]],
) -> list[dict[str, Any]]:
    """What each method gains from reading more passages: for every name and step from one k to a
    larger one the paired test, with `adjusted_p` for all of them.

    Parameters
    ----------
    by_k: by the number of passages, or by the retriever, the measurements of
        `experiments.side_by_side.setting`.
    steps: pairs (fewer, more) of numbers, or of retrievers, in `by_k`.
    """

    def right(name: str, k: Any) -> list[int]:
        return [int(each) for each in by_k[k]["methods"][name]["right"]]

    rows = [(name, few, many) for name in names for few, many in steps]
    tests = [
        paired_test(right(name, many), right(name, few))
        for name, few, many in rows
    ]
    ps = holm([test.p for test in tests])
    return [
        {"method": name, "from": few, "to": many, "difference": test.difference}
        | {"ci95": list(test.ci95), "p": test.p, "adjusted_p": p}
        for (name, few, many), test, p in zip(rows, tests, ps, strict=True)
    ]


def gain_in_words(gain: Mapping[str, Any]) -> str:
    """A row of `gains` in a few words; `open` is a change that could be chance, as in `VERDICTS`."""
    difference, (low, high) = gain["difference"], gain["ci95"]
    change = f"gains {in_points(difference, (low, high))}"
    if difference < 0:
        change = f"loses {in_points(-difference, (-high, -low))}"
    verdict = " (open)" if gain["adjusted_p"] >= ALPHA else ""
    return f"{called(gain['method'])} {change} from {gain['from']} to {gain['to']} passages{verdict}"


def gaps(order: Mapping[str, Any], name: str) -> dict[str, str]:
    """How many points FiD is above RAG-Sequence in every setting of one corpus of ``order.json``.

    Only means with their intervals are stored there. A star says that the two intervals are apart,
    which asks for more than a paired test does.
    """
    by_k = {
        k: part["em"] for k, part in order[f"{name}, by k"].items() if k != "n"
    }
    others, short = order[f"{name}, others"], order[f"{name}, short"]
    settings = {
        **{f"retrieved, k = {k}": em for k, em in by_k.items()},
        "the gold passage alone": others["gold alone"],
        "the gold passage and four near it": others["nearest"],
        "the gold passage and four drawn by lot": others["random"],
        "retrieved, k = 5, answer early": short["whole"],
        "retrieved, k = 5, answer early, cut": short["short"],
    }
    return {
        setting: _gap(em["fid"], em["rag-sequence"])
        for setting, em in settings.items()
    }


def _gap(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    (low_a, high_a), (low_b, high_b) = a["ci95"], b["ci95"]
    star = " *" if low_a > high_b or low_b > high_a else ""
    return f"{cut_off(a['mean'] - b['mean'], '+')}{star}"


def claims(
    tables: Mapping[str, Results],
    by_k: Mapping[int, Mapping[str, Any]],
    realm: Mapping[str, Any],
    language: Mapping[str, Any],
) -> list[tuple[str, str, list[str]]]:
    """Each claim, what its paper bases it on, and what stored tests say here.

    Parameters
    ----------
    tables: comparisons by what they are called; those that lack a method are left out of its rows.
    by_k: as in `gains`.
    realm, language: the content of ``realm.json`` and ``language.json``.
    """
    first, *_, last = sorted(by_k)
    rising = gains(
        by_k, ("fid", "rag-sequence", "rag-token"), ((first, 5), (5, last))
    )
    return [
        (
            "RAG-Sequence is ahead of RAG-Token, by little (Lewis et al. 2020, table 1)",
            "NQ 44.5 and 44.1, TriviaQA 56.8 and 55.2, CuratedTrec 52.2 and 50.0; behind on WebQ, "
            "45.2 and 45.5",
            held_against(tables, ("rag-sequence", "rag-token")),
        ),
        (
            "RAG is ahead of REALM (Lewis et al. 2020, table 1)",
            "NQ 44.5 and 40.4, WebQ 45.2 and 40.7, CuratedTrec 52.2 and 46.8",
            held_against(tables, ("rag-sequence", "realm")),
        ),
        (
            "FiD is ahead of RAG (Izacard and Grave 2021, table 1)",
            "NQ 51.4, in the smaller size 48.2, and 44.5",
            held_against(tables, ("fid", "rag-sequence")),
        ),
        (
            "FiD still gains from more passages where others no longer do (Izacard and Grave 2021, "
            "section 4)",
            "from 10 to 100 passages 3.5 points on NQ and 6 on TriviaQA",
            [gain_in_words(gain) for gain in rising],
        ),
        (
            "A retriever that is trained with the reader, its index kept up to date, is ahead of "
            "one that is not (Guu et al. 2020, table 2)",
            "NQ dev, recall@5: 38.5; with the inverse cloze task only 13.9, with an index "
            "refreshed 30 times less often 15.1",
            _joint_training(realm),
        ),
        (
            "kNN-LM lowers perplexity; its paper does not measure answers (Khandelwal et al. 2020, "
            "table 1)",
            "perplexity on WikiText-103: from 18.65 to 16.12",
            [
                _perplexity(language["test"]),
                *(
                    f"answers, {label}: {_with_verdict(results, 'knn-lm', BASELINE)}"
                    for label, results in tables.items()
                    if {"knn-lm", BASELINE} <= set(results["methods"])
                ),
            ],
        ),
        (
            "Methods with passages are ahead of a closed-book model, even a far larger one (Lewis "
            "et al. 2020, table 1)",
            "NQ 36.6 for a closed-book model of 11 billion parameters, 40.4 for REALM, 44.5 for "
            "RAG",
            [
                f"{label}: {_all_ahead(results)}"
                for label, results in tables.items()
                if BASELINE in results["methods"]
            ],
        ),
    ]


def markdown(rows: Sequence[tuple[str, str, Sequence[str]]]) -> str:
    """`claims` as a Markdown table."""
    lines = [
        f"| {claim} | {theirs} | {'<br>'.join(capital(line) for line in here)} |"
        for claim, theirs, here in rows
    ]
    head = [
        "| what the paper claims | the paper's figures (exact match, %, unless named) | what is found "
        "here |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *lines])


def bullets(lines: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"* {capital(line)}" for line in lines)


def pairs(
    results: Results, names: Sequence[str] = FOUR
) -> dict[str, dict[str, Any]]:
    """For every pair of the named methods, "A - B", the stored test of exact match: `difference` and
    `ci95` of shares, and the adjusted `p`."""
    out = {}
    for a, b in combinations(names, 2):
        difference, ci95, p = _difference(results, a, b)
        test = {"difference": difference, "ci95": ci95, "p": p}
        out[f"{called(a)} - {called(b)}"] = test
    return out


def in_pairs(results: Results, names: Sequence[str] = FOUR) -> dict[str, str]:
    """`pairs` in points with their intervals; a star says that a difference is significant."""
    return {
        pair: points(test) + (" *" if test["p"] < ALPHA else "")
        for pair, test in pairs(results, names).items()
    }


def _joint_training(realm: Mapping[str, Any]) -> list[str]:
    """The two tests of REALM's pre-training, by recall of the gold passage among five."""
    tests = {
        "recall@5 after pre-training, against before it": realm["refreshed"][
            "gain"
        ]["5"],
        "recall@5 with a refreshed index, against one never refreshed": realm[
            "differences"
        ]["stale"],
    }
    ps = holm([test["p"] for test in tests.values()])
    lines = []
    for (what, test), p in zip(tests.items(), ps, strict=True):
        verdict = VERDICTS[
            0 if p >= ALPHA else 1 if test["difference"] > 0 else -1
        ]
        lines.append(f"{what}: {verdict}; {points(test)} points")
    return lines


def _perplexity(test: Mapping[str, Mapping[str, Any]]) -> str:
    """kNN-LM's perplexity against its base's; the stored difference is relative."""
    base, knn = test["base"], test["knn-lm"]
    low, high = knn["ci95"]
    verdict = VERDICTS[1 if high < 0 else -1 if low > 0 else 0]
    change = relative(knn["difference"], knn["ci95"])
    return (
        f"perplexity: {verdict}; {base['perplexity']:.1f} without the memory, "
        f"{knn['perplexity']:.1f} with it, {change} %"
    )


def _with_verdict(results: Results, a: str, b: str) -> str:
    """`ahead`, and that the difference is open where it could be chance."""
    verdict = "" if direction(results, a, b) else f" ({VERDICTS[0]})"
    return f"{ahead(results, a, b)}{verdict}"


def _all_ahead(results: Results, other: str = BASELINE) -> str:
    """For which methods the tests bear out that they are ahead of `other`."""
    found: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for name in results["methods"]:
        if name != other:
            found[direction(results, name, other)].append(called(name))
    return "; ".join(
        f"{VERDICTS[at]} for {listed(names)}"
        for at, names in found.items()
        if names
    )


def _difference(
    results: Results, a: str, b: str
) -> tuple[float, tuple[float, float], float]:
    """The stored test of exact match as a - b: difference, interval and adjusted p."""
    for test in results["paired"]:
        if test["metric"] == "em" and {test["a"], test["b"]} == {a, b}:
            p = adjusted(results["paired"], "em")[frozenset((a, b))]
            low, high = test["ci95"]
            if test["a"] == a:
                return test["difference"], (low, high), p
            return -test["difference"], (-high, -low), p
    raise InputError(f"The results hold no paired test of {a!r} and {b!r}.")
