"""How many passages the methods gain from on one model, from comparisons that were stored.

`python -m book.experiments.passages_read OUT FOLDER...` reads the comparisons that
`ragbook compare --k N --out FOLDER` wrote, each with other numbers of passages on the same first
questions, and writes what each method answered correctly, by k.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.evaluation import Comparison
from ragbook.evaluation.statistics import mean_ci
from ragbook.files import write_json


def passages_read(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """By k, as a string: the number of questions, the recall of the gold passage, and each method's
    exact match and its `right`, as in `experiments.side_by_side.setting`.

    Of every comparison as many first questions are taken as the shortest has, so that they can be
    compared question by question.

    Raises
    ------
    InputError: the comparisons are of other questions.
    """
    n = min(len(comparison.predictions) for comparison in comparisons)
    asked = [line["question"] for line in comparisons[0].predictions[:n]]
    out = {}
    for comparison in comparisons:
        k, lines = comparison.results["k"], comparison.predictions[:n]
        if [line["question"] for line in lines] != asked:
            raise InputError(
                f"the comparison with k = {k} is of other questions; give comparisons of the same"
            )
        found = [
            float(line["gold_rank"] is not None and line["gold_rank"] <= k)
            for line in lines
        ]
        methods = {}
        for name in comparison.results["methods"]:
            right = [int(line["methods"][name]["em"]) for line in lines]
            methods[name] = {
                "em": mean_ci(right),
                "right": "".join(map(str, right)),
            }
        out[str(k)] = {
            "n": n,
            "recall": mean_ci(found),
            "methods": methods,
        }
    return dict(sorted(out.items(), key=lambda part: int(part[0])))


def main(out: str, *folders: str) -> None:
    """Read the comparisons and write the file."""
    write_json(
        Path(out),
        passages_read([Comparison.load(folder) for folder in folders]),
        indent=1,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
