"""Why the order of the methods turns over on other passages: what each makes of further passages.

`python -m book.experiments.order book/results/order.json NAME READER CORPUS QUESTIONS` measures,
and stores under NAME, exact match by the number of passages and the kinds of FiD's errors; with
the gold passage and others that are near it or drawn by lot; and with passages that are cut short.
`miniwiki` is a corpus and stands for its dev questions.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragbook.corpus import Corpus, Question, load_corpus, load_questions
from ragbook.corpus.answers import has_answer
from ragbook.evaluation.errors import counts, error_kind
from ragbook.evaluation.metrics import exact_matches, hits_at_k
from ragbook.evaluation.statistics import mean_ci
from ragbook.methods import load
from ragbook.retrieval import (
    OracleRetriever,
    RandomRetriever,
    Retrieved,
    Retriever,
)

from .report import answered, write_sections

METHODS = ("realm", "rag-sequence", "rag-token", "fid")
KS = (1, 2, 5, 10)
SAMPLE, WORDS = 150, 60


def by_k(
    reader: str, retriever: Retriever, questions: Sequence[Question]
) -> dict[str, Any]:
    """For every k of `KS`: recall, each method's exact match, and what FiD's answers are."""
    methods = {
        m.name: m for m in load(METHODS, retriever, True, reader, shared=True)
    }
    found = retriever.retrieve(questions, max(KS))
    out: dict[str, Any] = {"n": len(questions)}
    for k in KS:
        answers = answered(methods, questions, k)
        kinds = [
            error_kind(answer.text, question, read.passages[:k])
            for answer, question, read in zip(
                answers["fid"], questions, found, strict=True
            )
        ]
        out[str(k)] = {
            "recall": mean_ci(hits_at_k(questions, found, k)),
            "em": {
                name: mean_ci(exact_matches(a, questions))
                for name, a in answers.items()
            },
            "fid's errors": counts(kinds),
        }
    return out


def others(
    reader: str,
    corpus: Corpus,
    retriever: Retriever,
    questions: Sequence[Question],
) -> dict[str, Any]:
    """Each method's exact match with the gold passage alone, and with four others beside it: the
    nearest, or some drawn by lot."""
    beside: dict[str, tuple[Retriever, int]] = {
        "gold alone": (OracleRetriever(corpus, retriever), 1),
        "nearest": (OracleRetriever(corpus, retriever), 5),
        "random": (OracleRetriever(corpus, RandomRetriever(corpus, seed=0)), 5),
    }
    return {"n": len(questions)} | {
        name: _em(reader, given, questions, k)
        for name, (given, k) in beside.items()
    }


class _Short:
    """Another retriever's passages, each cut after `WORDS` words."""

    def __init__(self, retriever: Retriever) -> None:
        self.retriever, self.name = retriever, retriever.name
        self.score_scale = retriever.score_scale

    def retrieve(
        self, questions: Sequence[Question], k: int
    ) -> list[Retrieved]:
        return [
            replace(
                found,
                passages=tuple(_cut(passage) for passage in found.passages),
            )
            for found in self.retriever.retrieve(questions, k)
        ]


def _cut(passage: Any) -> Any:
    return replace(passage, text=" ".join(passage.text.split()[:WORDS]))


def short(
    reader: str,
    corpus: Corpus,
    retriever: Retriever,
    questions: Sequence[Question],
) -> dict[str, Any]:
    """Each method's exact match with whole passages and with their first `WORDS` words, on the
    questions whose gold passage answers within these."""
    kept = [
        q
        for q in questions
        if q.gold_passage
        and has_answer(_cut(corpus.get(q.gold_passage)).text, q.answers)
    ]
    return {
        "n": len(kept),
        "words": WORDS,
        "whole": _em(reader, retriever, kept, 5),
        "short": _em(reader, _Short(retriever), kept, 5),
    }


def _em(
    reader: str, retriever: Retriever, questions: Sequence[Question], k: int
) -> dict[str, Any]:
    methods = {
        m.name: m for m in load(METHODS, retriever, True, reader, shared=True)
    }
    answers = answered(methods, questions, k)
    return {
        name: mean_ci(exact_matches(a, questions))
        for name, a in answers.items()
    }


def main(
    out: Path, name: str, reader: str, corpus_name: str, asked: str
) -> None:
    """Measure the three sections of one corpus, and write them."""
    from ragbook.index import build_index
    from ragbook.models import load_encoder
    from ragbook.retrieval import DenseRetriever

    corpus = load_corpus(corpus_name)
    split = "dev" if asked == "miniwiki" else None
    questions = list(load_questions(asked, split))[:SAMPLE]
    encoder = load_encoder()
    index = build_index(
        corpus, Path(f"build/order-{name}"), encoder, overwrite=True
    )
    retriever = DenseRetriever(index, encoder)
    write_sections(
        out,
        {
            f"{name}, by k": lambda: by_k(reader, retriever, questions),
            f"{name}, others": lambda: others(
                reader, corpus, retriever, questions
            ),
            f"{name}, short": lambda: short(
                reader, corpus, retriever, questions
            ),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:6])
