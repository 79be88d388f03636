"""RAG's ablations: passages read, thorough or fast decoding, a question tower trained with it.

`python -m book.experiments.rag book/results/rag.json` measures what chapter 5 plots, on MiniWiki
with the bundled readers, in about twenty minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ragbook.corpus import Question, miniwiki
from ragbook.evaluation.metrics import exact_matches, hits_at_k
from ragbook.evaluation.statistics import mean_ci, paired_test
from ragbook.methods import load
from ragbook.methods.rag import RagSequence
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever, Retriever

from .report import answered, write_sections

KS = (1, 2, 5, 10, 20)
SAMPLE, TEST_SAMPLE = 100, 600
"""How many dev questions are read with up to 20 passages, and how many test questions are decoded
in both ways."""


def passages_read(
    retriever: Retriever, questions: Sequence[Question]
) -> dict[str, Any]:
    """Recall of the gold passage by the retriever, and exact match of both models, each with the
    question tower that it trained, for every k of `KS`."""
    found = retriever.retrieve(questions, max(KS))
    methods = {
        m.name: m
        for m in load(["rag-sequence", "rag-token"], retriever, verbatim=True)
    }
    out: dict[str, Any] = {
        "n": len(questions),
        "recall": {},
        "rag-sequence": {},
        "rag-token": {},
    }
    for k in KS:
        out["recall"][str(k)] = mean_ci(hits_at_k(questions, found, k))
        for name, answers in answered(methods, questions, k).items():
            out[name][str(k)] = mean_ci(exact_matches(answers, questions))
    return out


def decoding(
    retriever: Retriever, questions: Sequence[Question], k: int = 5
) -> dict[str, Any]:
    """RAG-Sequence with thorough and with fast decoding, and with and without the question tower
    that it trained.

    Exact match and seconds a question of both ways to decode, and their agreement; recall and exact
    match of the same reader over the retriever as it is (`frozen`) and over its own question tower
    (`trained`), and the differences.
    """
    (own,) = load(["rag-sequence"], retriever, verbatim=True)
    assert isinstance(own, RagSequence)
    fast = RagSequence(own.reader, own.retriever, verbatim=True, thorough=False)
    answers = answered({"thorough": own, "fast": fast}, questions, k)
    same = [a.text == b.text for a, b in zip(*answers.values(), strict=True)]
    ways: dict[str, Any] = {"agreement": mean_ci(same)}
    for name, each in answers.items():
        seconds = sum(answer.seconds for answer in each) / len(each)
        ways[name] = {
            "em": mean_ci(exact_matches(each, questions)),
            "seconds_per_question": seconds,
        }

    untrained = RagSequence(own.reader, retriever, verbatim=True)
    right = {
        "frozen": exact_matches(
            answered({"frozen": untrained}, questions, k)["frozen"], questions
        ),
        "trained": exact_matches(answers["thorough"], questions),
    }
    joint, hits = {}, {}
    for name, one in (("frozen", retriever), ("trained", own.retriever)):
        found = one.retrieve(questions, max(KS))
        hits[name] = hits_at_k(questions, found, k)
        recall = {
            str(at): mean_ci(hits_at_k(questions, found, at)) for at in KS
        }
        joint[name] = {"recall": recall, "em": mean_ci(right[name])}
    for name, values in (("recall", hits), ("em", right)):
        joint[f"{name}_difference"] = asdict(
            paired_test(values["trained"], values["frozen"])
        )
    return {"n": len(questions), "k": k, "decoding": ways, "joint": joint}


def main(out: str) -> None:
    """Measure everything that `out` does not hold yet."""
    from ragbook.index import build_index

    encoder = load_encoder()
    index = build_index(
        miniwiki.corpus(), Path("build/index"), encoder, progress=False
    )
    retriever = DenseRetriever(index, encoder)
    dev, test = (list(miniwiki.questions(split)) for split in ("dev", "test"))
    write_sections(
        Path(out),
        {
            "test": lambda: decoding(retriever, test[:TEST_SAMPLE]),
            "dev": lambda: passages_read(retriever, dev[:SAMPLE]),
        },
    )


if __name__ == "__main__":
    main(sys.argv[1])
