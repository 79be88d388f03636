"""The effect of DPR's training on the embedded encoder: similarities, losses, hard negatives.

`python -m book.experiments.dpr book/results/dpr.json` trains every variant into `build/dpr`, two
minutes each on two cores, and measures recall on MiniWiki's dev and test questions, and what hard
negatives and the training itself change.
`python -m book.experiments.dpr OUT CORPUS TRAIN DEV` does so with your own passages and questions
and the first variant.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragbook.corpus import Corpus, QuestionSet, load_corpus, load_questions
from ragbook.evaluation.metrics import hits_at_k
from ragbook.evaluation.statistics import mean_ci, paired_test
from ragbook.index import build_index
from ragbook.models import Encoder, load_encoder
from ragbook.models.encoder import MANIFEST
from ragbook.retrieval import BM25Retriever, DenseRetriever, Retriever
from ragbook.training.dpr import SCALES, Recipe, pairs, train_dpr

from .report import write_sections

KS = (1, 5, 20)
VARIANTS = {
    "cross-entropy, cosine": Recipe(epochs=1),
    "cross-entropy, dot": Recipe(epochs=1, similarity="dot"),
    "cross-entropy, l2": Recipe(epochs=1, similarity="l2"),
    "hinge, cosine": Recipe(epochs=1, loss="hinge"),
    "cross-entropy, cosine, in-batch negatives only": Recipe(
        epochs=1, hard_negatives=0
    ),
}
"""Every question is shown once, so that all variants train for the same few minutes."""
BASE = "cross-entropy, cosine"
AGAINST = {
    "hard negatives": "cross-entropy, cosine, in-batch negatives only",
    "training": "untrained, cosine",
}
"""What the base is tested against, question by question, and what it has more than that."""


def recall(
    retriever: Retriever, splits: Mapping[str, QuestionSet]
) -> dict[str, Any]:
    """Recall@k for every k of `KS`, and the number of questions, for every split."""
    out = {}
    for split, questions in splits.items():
        found = retriever.retrieve(questions, max(KS))
        out[split] = {
            "n": len(questions),
            "recall": {
                str(k): mean_ci(hits_at_k(questions, found, k)) for k in KS
            },
        }
    return out


def differences(
    retriever: Callable[[str], Retriever], splits: Mapping[str, QuestionSet]
) -> dict[str, Any]:
    """Recall@k of the base minus that of each of `AGAINST`, as paired tests, for every split.

    Args:
        retriever: makes that of a section's name.
    """
    hits: dict[str, dict[str, dict[int, list[float]]]] = {}
    for name in (BASE, *AGAINST.values()):
        found = retriever(name)
        hits[name] = {}
        for split, questions in splits.items():
            results = found.retrieve(questions, max(KS))
            hits[name][split] = {
                k: hits_at_k(questions, results, k) for k in KS
            }
    return {
        what: {
            split: {
                str(k): asdict(
                    paired_test(hits[BASE][split][k], hits[name][split][k])
                )
                for k in KS
            }
            for split in splits
        }
        for what, name in AGAINST.items()
    }


def untrained(similarity: str) -> Encoder:
    """The embedded encoder, its vectors compared by `similarity`."""
    one = load_encoder()
    scale = SCALES[similarity]
    return Encoder(
        one.model,
        one.tokenizer,
        one.id,
        one.sha256,
        scale,
        similarity=similarity,
    )


def trained(
    recipe: Recipe, corpus: Corpus, questions: QuestionSet, work: Path
) -> Encoder:
    """The encoder of a variant, trained into `work` or, if it is there already, loaded from it."""
    what = f"{recipe} {corpus.sha256} {questions.sha256}"
    folder = work / hashlib.sha256(what.encode()).hexdigest()[:12]
    if (folder / MANIFEST).is_file():
        return load_encoder(str(folder))
    return train_dpr(
        pairs(corpus, questions, recipe.hard_negatives), folder, recipe
    )


def main(out: str, *own: str) -> None:
    """Measure BM25, the untrained encoder and every variant."""
    corpus = load_corpus(own[0] if own else "miniwiki")
    training = load_questions(own[1] if own else "miniwiki", "train")
    splits = {
        split: load_questions(own[2] if own else "miniwiki", split)
        for split in (("dev",) if own else ("dev", "test"))
    }
    work = Path("build/dpr")

    def dense(name: str) -> Retriever:
        kind, _, similarity = name.partition(", ")
        towers = (
            untrained(similarity)
            if kind == "untrained"
            else trained(VARIANTS[name], corpus, training, work)
        )
        index = build_index(
            corpus, work / "index", towers, progress=False, overwrite=True
        )
        return DenseRetriever(index, towers)

    names = [f"untrained, {similarity}" for similarity in SCALES]
    names += list(VARIANTS)[: 1 if own else None]
    sections: dict[str, Callable[[], Any]] = {
        "bm25": lambda: recall(BM25Retriever(corpus), splits),
    }
    for name in names:
        sections[name] = lambda name=name: recall(dense(name), splits)
    if not own:
        sections["differences"] = lambda: differences(dense, splits)
    write_sections(Path(out), sections)


if __name__ == "__main__":
    main(*sys.argv[1:])
