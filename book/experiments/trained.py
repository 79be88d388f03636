"""Several trainings of every method, with intervals over seeds and questions together.

`python -m book.experiments.trained book/results/trained.json FOLDER ...` answers the first test
questions with the readers in the folders, which `ragbook train methods --seed S --out FOLDER`
wrote, one for each seed.
`... OUT --corpus CORPUS --questions QUESTIONS FOLDER ...` does so on your own passages.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.corpus import Question, load_corpus, load_questions
from ragbook.evaluation.errors import error_kind
from ragbook.evaluation.metrics import contains, exact_matches
from ragbook.evaluation.statistics import holm, over_seeds
from ragbook.files import write_json
from ragbook.methods import load
from ragbook.retrieval import Retriever

from .report import answered

METHODS = ("realm", "rag-sequence", "rag-token", "fid")
SAMPLE = 300
"""How many test questions every seed's readers answer; their order is random."""

Scores = dict[str, dict[str, list[float]]]


def scores(
    reader: str, retriever: Retriever, questions: Sequence[Question], **how: Any
) -> Scores:
    """Of every method: 1.0 or 0.0 for each question under `em`, `contains` and `cut`."""
    methods = {m.name: m for m in load(METHODS, retriever, True, reader, **how)}
    out: Scores = {}
    for name, answers in answered(methods, questions).items():
        pairs = list(zip(answers, questions, strict=True))
        out[name] = {
            "em": exact_matches(answers, questions),
            "contains": [float(contains(a.text, q.answers)) for a, q in pairs],
            "cut": [
                float(error_kind(a.text, q, None) == "cut") for a, q in pairs
            ],
        }
    return out


def summary(by_seed: Sequence[Scores]) -> dict[str, Any]:
    """The mean of every method's scores with its interval over seeds and questions, each seed's own
    means, and the paired tests of exact match, Holm-adjusted for all pairs of methods."""
    methods: dict[str, Any] = {}
    for name in by_seed[0]:
        methods[name] = {}
        for metric in by_seed[0][name]:
            values = np.array([each[name][metric] for each in by_seed])
            found = over_seeds(values)
            methods[name][metric] = {
                "mean": found.difference,
                "ci95": list(found.ci95),
                "by_seed": values.mean(1).tolist(),
            }
    pairs = list(combinations(methods, 2))
    tests = [over_seeds(_em(by_seed, a) - _em(by_seed, b)) for a, b in pairs]
    adjusted = holm([test.p for test in tests])
    paired = [
        {"a": a, "b": b, "metric": "em", **asdict(test), "adjusted_p": p}
        for (a, b), test, p in zip(pairs, tests, adjusted, strict=True)
    ]
    return {"methods": methods, "paired": paired}


def _em(
    by_seed: Sequence[Mapping[str, Mapping[str, Any]]], name: str
) -> np.ndarray:
    return np.array([each[name]["em"] for each in by_seed])


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer, summarise and write."""
    from ragbook.index import build_index
    from ragbook.models import load_encoder
    from ragbook.retrieval import DenseRetriever

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--corpus", default="miniwiki")
    parser.add_argument("--questions", default="miniwiki")
    given = parser.parse_args(arguments)
    corpus, encoder = load_corpus(given.corpus), load_encoder()
    questions = list(load_questions(given.questions))[:SAMPLE]
    index = build_index(
        corpus, Path("build/trained-index"), encoder, overwrite=True
    )
    retriever = DenseRetriever(index, encoder)
    by_seed = [scores(folder, retriever, questions) for folder in given.folders]
    found = {
        "n": len(questions),
        "k": 5,
        "seeds": len(by_seed),
        **summary(by_seed),
    }
    write_json(given.out, found, indent=1)


if __name__ == "__main__":
    main()
