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
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import load_encoder, load_reader
from ragbook.models.loading import load_joint
from ragbook.retrieval import DenseRetriever, Retriever

from .report import answered, write_sections

KS = (1, 2, 5, 10, 20)
SAMPLE = 200
"""How many dev questions are read with up to 20 passages."""


def passages_read(retriever: Retriever, questions: Sequence[Question]) -> dict[str, Any]:
    """Recall of the gold passage and exact match of both models for every k of `KS`."""
    found = retriever.retrieve(questions, max(KS))
    methods = {
        name: kind(load_reader(method=name), retriever, verbatim=True)
        for name, kind in (("rag-sequence", RagSequence), ("rag-token", RagToken))
    }
    out: dict[str, Any] = {"n": len(questions), "recall": {}, "rag-sequence": {}, "rag-token": {}}
    for k in KS:
        out["recall"][str(k)] = mean_ci(hits_at_k(questions, found, k))
        for name, answers in answered(methods, questions, k).items():
            out[name][str(k)] = mean_ci(exact_matches(answers, questions))
    return out


def decoding(
    retriever: DenseRetriever, questions: Sequence[Question], k: int = 5
) -> dict[str, Any]:
    """RAG-Sequence with thorough and with fast decoding, and with its question tower trained.

    Exact match and seconds a question of both ways to decode, and their agreement; recall and exact
    match with the question tower frozen or trained together with the generator, and the
    differences.
    """
    reader = load_reader(method="rag-sequence")
    ways = {
        name: RagSequence(reader, retriever, verbatim=True, thorough=name == "thorough")
        for name in ("thorough", "fast")
    }
    answers = answered(ways, questions, k)
    same = [a.text == b.text for a, b in zip(*answers.values(), strict=True)]
    ways_out: dict[str, Any] = {"agreement": mean_ci(same)}
    for name, own in answers.items():
        seconds = sum(answer.seconds for answer in own) / len(own)
        ways_out[name] = {
            "em": mean_ci(exact_matches(own, questions)),
            "seconds_per_question": seconds,
        }

    generator, encoder = load_joint()
    trained = DenseRetriever(retriever.index, encoder)
    method = RagSequence(generator, trained, verbatim=True)
    right = {
        "frozen": exact_matches(answers["thorough"], questions),
        "trained": exact_matches(answered({"trained": method}, questions, k)["trained"], questions),
    }
    joint, hits = {}, {}
    for name, one in (("frozen", retriever), ("trained", trained)):
        found = one.retrieve(questions, max(KS))
        hits[name] = hits_at_k(questions, found, k)
        recall = {str(at): mean_ci(hits_at_k(questions, found, at)) for at in KS}
        joint[name] = {"recall": recall, "em": mean_ci(right[name])}
    for name, values in (("recall", hits), ("em", right)):
        joint[f"{name}_difference"] = asdict(paired_test(values["trained"], values["frozen"]))
    return {"n": len(questions), "k": k, "decoding": ways_out, "joint": joint}


def main(out: str) -> None:
    """Measure everything that `out` does not hold yet."""
    from ragbook.index import build_index

    encoder = load_encoder()
    index = build_index(miniwiki.corpus(), Path("build/index"), encoder, progress=False)
    retriever = DenseRetriever(index, encoder)
    dev, test = (list(miniwiki.questions(split)) for split in ("dev", "test"))
    write_sections(
        Path(out),
        {
            "test": lambda: decoding(retriever, test),
            "dev": lambda: passages_read(retriever, dev[:SAMPLE]),
        },
    )


if __name__ == "__main__":
    main(sys.argv[1])
