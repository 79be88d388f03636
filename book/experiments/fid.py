"""FiD's ablations: passages read, distractors, evidence, and a retriever that learns from FiD.

`python -m book.experiments.fid book/results/fid.json` measures what chapter 6 plots, on MiniWiki
with the bundled readers, in about forty minutes on two cores that also had other work.
`python -m book.experiments.fid OUT CORPUS TRAIN DEV READER` measures the reader in a folder with
ten passages and with one, and distils it into the damaged retriever, on your own passages and
questions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ragbook.corpus import (
    Corpus,
    Question,
    QuestionSet,
    load_corpus,
    load_questions,
)
from ragbook.evaluation.metrics import exact_matches, hits_at_k
from ragbook.evaluation.statistics import mean_ci, paired_test
from ragbook.index import build_index
from ragbook.methods import Method, load
from ragbook.methods.fid import FiD
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import Encoder, SeqReader, load_encoder, load_reader
from ragbook.models.bundled import BUNDLED
from ragbook.models.encoder import weights_sha256
from ragbook.retrieval import (
    BM25Retriever,
    DenseRetriever,
    HybridRetriever,
    OracleRetriever,
    Retriever,
)
from ragbook.training.distil import Recipe, distil

from .rag import SAMPLE
from .report import answered, write_sections

TEST_SAMPLE, EVIDENCE = 600, 300
"""How many test questions are answered with many passages and with few, and of how many dev
questions the evidence is measured."""
KS = (1, 2, 5, 10, 20, 50)
RECALL_KS = (1, 5, 10, 20)
DISTRACTORS = (0, 1, 4, 9, 19)
BATCH = 16
REDRAWN = (3, 4, 5)
"""The layers of the embedded encoder's six that are random in the damaged one."""
FROM_DAMAGED = Recipe(rate=3e-4, frozen_layers=min(REDRAWN))
"""The random layers are trained, with a higher rate than already trained layers would need."""
BRIEFLY = replace(FROM_DAMAGED, rounds=2, questions=320)
"""The same for your own passages and questions."""


def many_and_few(
    reader: SeqReader,
    retriever: Retriever,
    questions: Sequence[Question],
    many: int = 10,
    few: int = 1,
) -> dict[str, Any]:
    """Exact match with many passages and with few, and the difference."""
    method = FiD(reader, retriever, verbatim=True)
    right = {
        n: exact_matches(
            answered({"fid": method}, questions, n)["fid"], questions
        )
        for n in (many, few)
    }
    difference = paired_test(right[many], right[few])
    em = {str(n): mean_ci(values) for n, values in right.items()}
    return {"n": len(questions), "em": em, "difference": asdict(difference)}


def passages_read(
    retriever: Retriever, questions: Sequence[Question]
) -> dict[str, Any]:
    """Recall of the gold passage, exact match and seconds a question for every k of `KS`; and
    RAG-Sequence, with its own question tower and fast decoding, for most of them."""
    rag, method = load(["rag-sequence", "fid"], retriever, verbatim=True)
    assert isinstance(rag, RagSequence)
    rag.thorough = False
    out: dict[str, Any] = {
        name: {} for name in ("recall", "fid", "seconds", "rag-sequence, fast")
    }
    found = retriever.retrieve(questions, max(KS))
    for k in KS:
        methods: dict[str, Method] = {"fid": method}
        if k == max(KS):
            methods["rag-sequence, fast"] = rag
        out["recall"][str(k)] = mean_ci(hits_at_k(questions, found, k))
        answers = answered(methods, questions, k)
        for name, own in answers.items():
            out[name][str(k)] = mean_ci(exact_matches(own, questions))
        out["seconds"][str(k)] = float(
            np.mean([answer.seconds for answer in answers["fid"]])
        )
    return {"n": len(questions), **out}


def distractors(
    corpus: Corpus, retriever: Retriever, questions: Sequence[Question]
) -> dict[str, Any]:
    """Exact match with the gold passage and different numbers of other retrieved passages."""
    method = FiD(
        load_reader(method="fid"),
        OracleRetriever(corpus, retriever),
        verbatim=True,
    )
    em = {
        str(count): mean_ci(
            exact_matches(
                answered({"fid": method}, questions, 1 + count)["fid"],
                questions,
            )
        )
        for count in DISTRACTORS
    }
    return {"n": len(questions), "em": em}


def evidence(
    retriever: Retriever, questions: Sequence[Question], k: int = 5
) -> dict[str, Any]:
    """For the questions whose gold passage is retrieved: how often each kind of evidence is highest
    on it, and the differences; and the right answers' log-likelihood under FiD and RAG."""
    method, shared = (
        FiD(load_reader(method="fid"), retriever, verbatim=True),
        load_reader(),
    )
    alike = [kind(shared, retriever) for kind in (FiD, RagSequence, RagToken)]
    hits: dict[str, list[float]] = {
        name: []
        for name in ("retriever", "attention", "first token", "leave one out")
    }
    nll: dict[str, list[float]] = {one.name: [] for one in alike}
    for at in range(0, len(questions), BATCH):
        part = questions[at : at + BATCH]
        found = retriever.retrieve(part, k)
        answers = [one.text for one in method.answer(part, k)]
        kinds = {
            "attention": method.attention(part, answers, k),
            "first token": method.first_token_scores(part, k),
            "leave one out": method.leave_one_out(part, answers, k),
        }
        for row, (question, one) in enumerate(zip(part, found, strict=True)):
            if question.gold_passage in one.ids:
                gold = one.ids.index(question.gold_passage)
                hits["retriever"].append(float(gold == 0))
                for name, weights in kinds.items():
                    hits[name].append(float(weights[row].argmax() == gold))
        first = [question.answers[0] for question in part]
        for one in alike:
            nll[one.name] += (-one.log_prob(part, first, k)).tolist()
    return {
        "n": len(questions),
        "k": k,
        "retrieved": len(hits["retriever"]),
        "heaviest": {name: mean_ci(values) for name, values in hits.items()},
        "difference": {
            name: asdict(paired_test(hits[name], hits["attention"]))
            for name in ("first token", "leave one out")
        },
        "nll": {name: mean_ci(values) for name, values in nll.items()},
        "nll_difference": {
            name: asdict(paired_test(nll[name], nll["fid"]))
            for name in ("rag-sequence", "rag-token")
        },
    }


def damaged(layers: Sequence[int] = REDRAWN, seed: int = 0) -> Encoder:
    """The embedded encoder with some of its layers random, as before any training: weights normal
    with standard deviation 0.02, biases 0, layer norms the identity."""
    whole = load_encoder()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number in layers:
            for part in whole.model.encoder.layer[number].modules():
                if isinstance(part, nn.Linear):
                    part.weight.normal_(0, 0.02, generator=generator)
                    part.bias.zero_()
                elif isinstance(part, nn.LayerNorm):
                    part.weight.fill_(1)
                    part.bias.zero_()
    sha256 = weights_sha256(whole.model)
    return Encoder(
        whole.model,
        whole.tokenizer,
        "minilm, damaged",
        sha256,
        whole.score_scale,
    )


def distillation(
    reader: SeqReader,
    start: Encoder,
    corpus: Corpus,
    training: QuestionSet,
    splits: Mapping[str, QuestionSet],
    work: Path,
    recipe: Recipe,
) -> dict[str, Any]:
    """Recall before and after every round, FiD's exact match with five retrieved passages on a
    sample of the first split, and the gain in recall@5 from the first round to the last."""
    rounds: list[dict[str, Any]] = []
    hits: dict[str, list[list[float]]] = {split: [] for split in splits}
    for retriever in distil(reader, start, corpus, training, work, recipe):
        row: dict[str, Any] = {}
        for split, questions in splits.items():
            found = retriever.retrieve(list(questions), max(RECALL_KS))
            recall = {
                str(k): mean_ci(hits_at_k(list(questions), found, k))
                for k in RECALL_KS
            }
            row[split] = {"n": len(questions), "recall": recall}
            hits[split].append(hits_at_k(list(questions), found, 5))
        sample = list(next(iter(splits.values())))[:SAMPLE]
        answers = answered(
            {"fid": FiD(reader, retriever, verbatim=True)}, sample, 5
        )["fid"]
        rounds.append(
            row
            | {
                "em": {
                    "n": len(sample),
                    **mean_ci(exact_matches(answers, sample)),
                }
            }
        )
        print(rounds[-1], flush=True)
    return {
        "recipe": asdict(recipe),
        "rounds": rounds,
        "difference": {
            split: asdict(paired_test(values[-1], values[0]))
            for split, values in hits.items()
        },
    }


def main(out: str, *own: str) -> None:
    """Measure everything that `out` does not hold yet."""
    corpus = load_corpus(own[0] if own else "miniwiki")
    train = load_questions(own[1] if own else "miniwiki", "train")
    dev = load_questions(own[2] if own else "miniwiki", "dev")
    splits = (
        {"dev": dev}
        if own
        else {"dev": dev, "test": load_questions("miniwiki", "test")}
    )
    last = list([*splits.values()][-1])
    reader, encoder = (
        load_reader(own[3] if own else BUNDLED, "fid"),
        load_encoder(),
    )
    folder = Path("build") / f"distil-{train.sha256[:8]}"
    index = build_index(corpus, folder / "embedded", encoder, progress=False)
    retriever, sample = DenseRetriever(index, encoder), list(dev)[:SAMPLE]
    sections: dict[str, Callable[[], Any]] = {
        "distillation": lambda: distillation(
            reader,
            damaged(),
            corpus,
            train,
            splits,
            folder,
            BRIEFLY if own else FROM_DAMAGED,
        ),
        "many and one": lambda: many_and_few(
            reader, retriever, last[:TEST_SAMPLE]
        ),
    }
    if not own:
        hybrid = HybridRetriever(retriever, BM25Retriever(corpus))
        sections |= {
            "many and one, hybrid": lambda: many_and_few(
                reader, hybrid, last[:TEST_SAMPLE]
            ),
            "twenty and five": lambda: many_and_few(
                reader, retriever, last[:TEST_SAMPLE], many=20, few=5
            ),
            "evidence": lambda: evidence(retriever, list(dev)[:EVIDENCE]),
            "passages": lambda: passages_read(retriever, sample),
            "distractors": lambda: distractors(corpus, retriever, sample),
        }
    write_sections(Path(out), sections)


if __name__ == "__main__":
    main(*sys.argv[1:])
