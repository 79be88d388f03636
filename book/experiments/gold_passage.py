"""Reading without retrieval errors: the bundled readers are given the gold passage.

`python -m book.experiments.gold_passage [SPLIT [READER_DIR]]` prints how often the seq2seq reader
(in FiD, free and restricted to the passage's words) and REALM's span reader are right

* on MiniWiki's questions with the gold passage alone, then together with the 4 and 9 others that
  are nearest by the embedded encoder; the first also by the questions' kind and question word;
* on invented worlds, whose names are always new: with one passage of one to six facts, then with
  five.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.corpus import Question, QuestionSet
from ragbook.evaluation.compare import Comparison, compare
from ragbook.methods.base import Method
from ragbook.methods.fid import FiD
from ragbook.methods.realm import Realm
from ragbook.models import load_encoder, load_reader, load_span_reader
from ragbook.models.bundled import BUNDLED
from ragbook.retrieval import OracleRetriever, Retrieved, Retriever
from ragbook.training.reader import worlds
from ragbook.training.reader.curriculum import vocabulary_words

WORLDS, SEED = 500, 2026
"""The number of invented questions in a row of the table, and their seed, which no recipe uses."""


class Shown:
    """A retriever that returns given passages with equal scores."""

    name, score_scale = "shown", 1.0

    def __init__(self, shown: Mapping[str, Retrieved]) -> None:
        self.shown = shown

    def retrieve(
        self, questions: Sequence[Question], k: int
    ) -> list[Retrieved]:
        """The given passages, looked up by each question's gold passage."""
        return [
            self.shown[str(question.gold_passage)] for question in questions
        ]


def invented(
    n_passages: int, words: list[str], count: int = WORLDS
) -> tuple[QuestionSet, Shown]:
    """Questions about invented worlds, each with its own passages."""
    rng = random.Random(f"{SEED}-{n_passages}")
    questions, shown = [], {}
    for number in range(count):
        drawn = worlds.example(rng, n_passages, (1, 6), 0.0, words)
        asked = Question(
            drawn.question.text, drawn.question.answers, str(number)
        )
        ids = tuple(
            str(number) if at == drawn.gold else f"{number}-{at}"
            for at in range(n_passages)
        )
        scores = np.zeros(n_passages, dtype=np.float32)
        shown[str(number)] = Retrieved(ids, scores, drawn.passages)
        questions.append(asked)
    return QuestionSet("worlds", "unseen", questions), Shown(shown)


def readers(retriever: Retriever, name: str = BUNDLED) -> Sequence[Method]:
    """The shared seq2seq reader, restricted to the passages' words and free; the span reader."""
    seq = load_reader(name)
    held, free = FiD(seq, retriever, verbatim=True), FiD(seq, retriever)
    held.name, free.name = "seq2seq", "seq2seq, free"
    span = Realm(load_span_reader(name), retriever)
    span.name = "span"
    return [held, free, span]


_ASKED = ("how many", "how", "who", "whose", "when", "where", "which", "what")


def asked_for(question: Question) -> str:
    """The question's first question word, "other" if it has none."""
    words = re.findall(r"[a-z]+", question.text.lower())
    text = " ".join(words)
    places = {word: f" {text} ".find(f" {word} ") for word in _ASKED}
    found = [word for word in _ASKED if places[word] >= 0]
    return min(found, key=places.__getitem__) if found else "other"


def exact_match_by(
    key: Callable[[Question], str],
    comparison: Comparison,
    questions: QuestionSet,
) -> dict[str, dict[str, float]]:
    """Exact match on each sort of question, with their number: sort -> method -> share."""
    sorts: dict[str, list[dict[str, Any]]] = {}
    for prediction, question in zip(
        comparison.predictions, questions, strict=True
    ):
        sorts.setdefault(key(question), []).append(prediction["methods"])
    return {
        f"{sort} (n = {len(rows)})": {
            name: float(np.mean([row[name]["em"] for row in rows]))
            for name in rows[0]
        }
        for sort, rows in sorted(sorts.items())
    }


def main(split: str = "dev", reader: str = BUNDLED) -> None:
    """Print one line for each setting and reader."""
    from ragbook.corpus import miniwiki
    from ragbook.index import build_index
    from ragbook.retrieval import DenseRetriever

    encoder, corpus, questions = (
        load_encoder(),
        miniwiki.corpus(),
        miniwiki.questions(split),
    )
    index = build_index(corpus, Path("build/index"), encoder, progress=False)
    oracle = OracleRetriever(corpus, DenseRetriever(index, encoder))
    settings: list[tuple[str, QuestionSet, Retriever, int]] = [
        (f"gold and {k - 1} others", questions, oracle, k) for k in (1, 5, 10)
    ]
    words = vocabulary_words(encoder.tokenizer)
    settings += [
        (f"worlds, {n} passages", *invented(n, words), n) for n in (1, 5)
    ]
    for name, asked, retriever, k in settings:
        comparison = compare(
            readers(retriever, reader), asked, k=k, progress=False
        )
        for method, scores in comparison.results["methods"].items():
            low, high = scores["ci95"]["em"]
            print(
                f"{name:<20} n = {len(asked):<5} {method:<14} EM {100 * scores['em']:.1f} "
                f"[{100 * low:.1f}, {100 * high:.1f}]  F1 {100 * scores['f1']:.1f}",
                flush=True,
            )
        if k == 1 and retriever is oracle:
            for key in (lambda question: question.kind, asked_for):
                for sort, shares in exact_match_by(
                    key, comparison, asked
                ).items():
                    print(
                        f"    {sort:<24}",
                        {m: f"{100 * s:.1f}" for m, s in shares.items()},
                    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
