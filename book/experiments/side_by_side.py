"""Ablations of all methods: passages read, the retriever, questions without an answer, memory.

`python -m book.experiments.side_by_side book/results/sweep.json` measures what chapter 7 plots in
addition to the comparison itself, on MiniWiki with the bundled readers, in about twenty minutes on
two cores.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.corpus import Question, miniwiki
from ragbook.evaluation.metrics import exact_matches, hits_at_k
from ragbook.evaluation.statistics import mean_ci
from ragbook.methods import NAMES, Method, load
from ragbook.retrieval import (
    BM25Retriever,
    DenseRetriever,
    OracleRetriever,
    RandomRetriever,
    Retriever,
)

from .report import answered, write_sections

K = 5
KS = (1, 2, 5, 10)
SAMPLE = 100
"""How many dev questions are answered at each setting."""
BATCH = 16
INDEX = Path("build/index")


def setting(
    retriever: Retriever, questions: Sequence[Question], k: int
) -> dict[str, Any]:
    """Recall@k, and every method's exact match and seconds a question, with k passages; `right` has
    a 1 for each question that it answers rightly and a 0 for each other, so that settings can be
    compared question by question."""
    hits = hits_at_k(questions, retriever.retrieve(questions, k), k)
    methods = {}
    for name, answers in answered(loaded(retriever), questions, k).items():
        seconds = float(np.mean([answer.seconds for answer in answers]))
        right = exact_matches(answers, questions)
        methods[name] = {
            "em": mean_ci(right),
            "right": "".join(str(int(each)) for each in right),
            "seconds_per_question": seconds,
        }
    return {
        "n": len(questions),
        "k": k,
        "recall": mean_ci(hits),
        "methods": methods,
    }


def unanswerable(
    retriever: Retriever, questions: Sequence[Question], k: int = K
) -> dict[str, Any]:
    """Every method's log p of its own answer to each question; None stands for probability 0."""
    log_probs = {
        name: [
            round(a.log_prob, 4) if np.isfinite(a.log_prob) else None
            for a in answers
        ]
        for name, answers in answered(loaded(retriever), questions, k).items()
    }
    return {"n": len(questions), "k": k, "log_probs": log_probs}


def loaded(retriever: Retriever) -> dict[str, Method]:
    """All bundled methods over one retriever, by name."""
    return {
        method.name: method for method in load(NAMES, retriever, verbatim=True)
    }


def asked_without_answer() -> list[Question]:
    """MiniWiki's unanswerable questions about articles that were not used to train readers."""
    trained = {
        p.id
        for a in miniwiki.articles()
        if a.split == "train"
        for p in a.passages
    }
    return [
        q for q in miniwiki.unanswerable() if q.rival_passage not in trained
    ]


def peak_memory(
    names: Sequence[str], questions: int = BATCH
) -> dict[str, float]:
    """For each method the peak memory in MiB of a new process that loads the index and the method
    and answers a batch of dev questions; `libraries` is a process that only loads the index."""
    code = "from experiments.side_by_side import peak; print(peak"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return {
        name or "libraries": float(
            subprocess.run(
                [sys.executable, "-c", f"{code}({name!r}, {questions}))"],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            ).stdout
        )
        for name in ("", *names)
    }


def peak(name: str, questions: int) -> float:
    """This process's peak resident memory in MiB after the method has answered."""
    retriever = dense()
    if name:
        (method,) = load([name], retriever, verbatim=True)
        method.answer(miniwiki.questions("dev")[:questions], K)
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    )  # Linux counts in KiB


def dense() -> DenseRetriever:
    """The dense retriever over MiniWiki's index, which is built if it does not exist."""
    from ragbook.index import build_index
    from ragbook.models import load_encoder

    encoder = load_encoder()
    return DenseRetriever(
        build_index(miniwiki.corpus(), INDEX, encoder, progress=False), encoder
    )


def main(out: str, sample: int = SAMPLE) -> None:
    """Measure everything that `out` does not hold yet."""
    corpus, retriever = miniwiki.corpus(), dense()
    questions = miniwiki.questions("dev")[:sample]
    others: dict[str, Retriever] = {
        "oracle": OracleRetriever(corpus, retriever),
        "bm25": BM25Retriever(corpus),
        "random": RandomRetriever(corpus),
    }
    sections: dict[str, Callable[[], Any]] = {
        # First, for a new process begins with the peak of the one that starts it.
        "memory, MiB": partial(peak_memory, NAMES),
        f"dense, k = {K}": partial(setting, retriever, questions, K),
    }
    for name, other in others.items():
        sections[f"{name}, k = {K}"] = partial(setting, other, questions, K)
    for k in KS:
        sections[f"dense, k = {k}"] = partial(setting, retriever, questions, k)
    sections["unanswerable"] = partial(
        unanswerable, retriever, asked_without_answer()[:100]
    )
    write_sections(Path(out), sections)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
