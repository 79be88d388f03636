"""What moves RAG: passages read, thorough or fast decoding, a question tower trained with it.

`python -m ragbook.evaluation.rag book/results/rag.json` measures what chapter 5 plots, on MiniWiki
with the bundled readers, in about twenty minutes on two cores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ragbook.corpus import Question, miniwiki
from ragbook.evaluation.metrics import exact_match, is_hit
from ragbook.evaluation.statistics import bootstrap_ci, paired_test
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import load_encoder, load_reader
from ragbook.models.bundled import load_joint
from ragbook.retrieval import DenseRetriever, Retrieved, Retriever

KS = (1, 2, 5, 10, 20)
BATCH = 16
METHODS = {"rag-sequence": RagSequence, "rag-token": RagToken}


def passages_read(retriever: Retriever, questions: Sequence[Question]) -> dict[str, Any]:
    """Recall of the gold passage and exact match of both models with k passages, k of `KS`."""
    found = retriever.retrieve(questions, max(KS))
    out: dict[str, Any] = {"n": len(questions), "recall": {}, "rag-sequence": {}, "rag-token": {}}
    for k in KS:
        out["recall"][str(k)] = _mean(_hits(questions, found, k))
        for name, kind in METHODS.items():
            method = kind(load_reader(method=name), retriever, verbatim=True)
            out[name][str(k)] = _mean(_right(method, questions, k)[0])
    return out


def decoding(retriever: Retriever, questions: Sequence[Question], k: int = 5) -> dict[str, Any]:
    """RAG-Sequence decoded thoroughly and fast: exact match, seconds a question, agreement."""
    out: dict[str, Any] = {"n": len(questions), "k": k}
    texts: dict[str, list[str]] = {}
    for name, thorough in (("thorough", True), ("fast", False)):
        reader = load_reader(method="rag-sequence")
        method = RagSequence(reader, retriever, verbatim=True, thorough=thorough)
        right, texts[name], seconds = _right(method, questions, k)
        out[name] = {"em": _mean(right), "seconds_per_question": seconds / len(questions)}
    same = [a == b for a, b in zip(texts["thorough"], texts["fast"], strict=True)]
    out["agreement"] = _mean(same)
    return out


def joint(frozen: DenseRetriever, questions: Sequence[Question], k: int = 5) -> dict[str, Any]:
    """Question tower frozen or trained with RAG-Sequence's generator: recall and exact match."""
    out: dict[str, Any] = {"n": len(questions), "k": k}
    reader, encoder = load_joint()
    hits, right = {}, {}
    for name, retriever, generator in (
        ("frozen", frozen, load_reader(method="rag-sequence")),
        ("trained", DenseRetriever(frozen.index, encoder), reader),
    ):
        found = retriever.retrieve(questions, max(KS))
        hits[name] = _hits(questions, found, k)
        method = RagSequence(generator, retriever, verbatim=True)
        right[name] = _right(method, questions, k)[0]
        out[name] = {
            "recall": {str(at): _mean(_hits(questions, found, at)) for at in KS},
            "em": _mean(right[name]),
        }
    for name, values in (("recall", hits), ("em", right)):
        test = paired_test(values["trained"], values["frozen"])
        out[f"{name}_difference"] = {
            "difference": test.difference,
            "ci95": list(test.ci95),
            "p": test.p,
        }
    return out


def _hits(questions: Sequence[Question], found: Sequence[Retrieved], k: int) -> list[float]:
    return [float(is_hit(q, f, k)) for q, f in zip(questions, found, strict=True)]


def _right(
    method: RagSequence | RagToken, questions: Sequence[Question], k: int
) -> tuple[list[float], list[str], float]:
    """Exact match and text of each answer, and the seconds all of them took."""
    right, texts, seconds = [], [], 0.0
    for at in range(0, len(questions), BATCH):
        part = questions[at : at + BATCH]
        for answer, question in zip(method.answer(part, k), part, strict=True):
            right.append(float(exact_match(answer.text, question.answers)))
            texts.append(answer.text)
            seconds += answer.seconds
    return right, texts, seconds


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": float(np.mean(values)), "ci95": list(bootstrap_ci(values))}


def main(out: str) -> None:
    """Measure everything and write it."""
    from ragbook.index import build_index

    encoder = load_encoder()
    index = build_index(miniwiki.corpus(), Path("build/index"), encoder, progress=False)
    retriever = DenseRetriever(index, encoder)
    dev, test = (list(miniwiki.questions(split)) for split in ("dev", "test"))
    results = {
        "decoding": {"split": "test", **decoding(retriever, test)},
        "joint": {"split": "test", **joint(retriever, test)},
        "passages": {"split": "dev", **passages_read(retriever, dev[:400])},
    }
    partial = Path(out).with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    partial.replace(out)


if __name__ == "__main__":
    main(sys.argv[1])
