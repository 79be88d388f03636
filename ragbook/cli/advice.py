"""What `ragbook compare` advises after it has seen the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragbook.evaluation.lines import scored_number
from ragbook.evaluation.statistics import cut_off

ENDURED = 0.03
"""The share of answers that may be cut short without a word."""


def advice(results: Mapping[str, Any], max_length: int, length_penalty: float | None) -> list[str]:
    """One sentence for each generative method of which more than `ENDURED` of the answers are cut
    short, and one for each of which as many were closed at the greatest length.

    Parameters
    ----------
    results: as in ``results.json``.
    max_length, length_penalty: those that the methods had; None for the penalties that were chosen
        on dev questions.
    """
    n, scored = results["questions"]["n"], scored_number(results)
    penalty = (
        "--length-penalty 1, or a larger value,"
        if length_penalty is None or length_penalty < 1
        else f"a --length-penalty above {length_penalty:g}"
    )
    told = []
    for name, scores in results["methods"].items():
        held = scores["truncated"]
        if held is None:  # it does not generate
            continue
        cut = scores["errors"]["cut"]
        if cut > ENDURED * scored:
            told.append(
                f"{name}: {cut_off(cut / scored)} % of its answers are the right one cut short; "
                f"{penalty} favours longer answers."
            )
        if held > ENDURED * n:
            told.append(
                f"{name}: {cut_off(held / n)} % of its answers would have gone on but were closed "
                f"at {max_length} tokens; a --max-length above {max_length} lets them."
            )
    return told


def cut_sentence(passages: int, words: int, which: str) -> str:
    """That many passages are longer than what the models see, and what to do; `words` is the most
    words at the end of one of them that were not read."""
    return (
        f"{passages:,} {which} are longer than what the encoder or a reader sees; up to {words:,} "
        "words at the end of one are not read. Cut them into shorter ones with `ragbook corpus "
        "build`; gold ids of the whole passages still count."
    )


_READ_ALL = (
    "it reads all with a smaller --k, shorter passages (`ragbook corpus build`) or a --reader that "
    "takes longer inputs."
)


def unread(results: Mapping[str, Any]) -> list[str]:
    """One sentence for each method whose prompts have no room for all passages."""
    told = []
    for name, scores in results["methods"].items():
        if left := scores.get("unread"):
            told.append(
                f"{name}: on {sum(left.values()):,} of {results['questions']['n']:,} questions not "
                f"all passages fit into its prompt, and it leaves out up to {max(map(int, left))} "
                f"of the lowest ranked; {_READ_ALL}"
            )
    return told


def unread_by(method: str, left: int) -> str:
    """So many of a question's passages were left out of a method's prompt, and what to do."""
    passages = "passage does" if left == 1 else f"{left} passages do"
    return f"{method}: the lowest ranked {passages} not fit into its prompt; {_READ_ALL}"


def answers_cut(results: Mapping[str, Any]) -> list[str]:
    """One sentence for each method whose model has no places for the whole of some gold answers."""
    return [
        f"{name}: {scores['answers_cut']:,} gold answers are longer than its model has places for; "
        "NLL counts their beginnings."
        for name, scores in results["methods"].items()
        if scores.get("answers_cut")
    ]
