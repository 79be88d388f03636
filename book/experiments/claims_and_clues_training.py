r"""Trains the shared reader to check claims and to write clues, by RAG's marginal likelihood.

Only the data differ from those for answering questions (Lewis et al. 2020, sections 2.4, 3.3, 3.4):
the retriever finds passages for the claim or the name, each is read together with it, and
\(\log p(y \mid x)\), marginalised over the passages, is maximised. A claim's label is one token,
for which RAG-Sequence and RAG-Token are the same sum over passages; a clue is a sentence, for which
they differ. First only the nearest passage is shown, which is cheap and mostly the right one, then
five.

Two sets of parameters can be trained. The biases and layer norms of encoder and decoder (BitFit,
Ben Zaken et al. 2022) give a file of some 100 kB; the whole upper layers give files as large as the
reader's own.

`python -m book.experiments.claims_and_clues_training TASK OUT [OBJECTIVE [MOVES]]` trains with TASK
`claims` or `clues`, OBJECTIVE `rag-sequence`, `rag-token` or `closed-book`, MOVES `biases` or
`layers`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.corpus import Question, QuestionSet, miniwiki
from ragbook.errors import InputError
from ragbook.methods.base import doc_log_probs
from ragbook.models import SeqReader, load_encoder
from ragbook.models.bundled import manifest, reader_model, write_manifest
from ragbook.models.embedded import minilm_tokenizer
from ragbook.retrieval import Retrieved, Retriever
from ragbook.training.loop import MasterAdamW, train, write_tensors
from ragbook.training.rag import marginal_log_likelihood, small_parameters
from ragbook.training.reader.train import FROZEN_LAYERS, quicken, set_dropout
from ragbook.training.run import Run

from . import claims_and_clues_data as tasks

TASKS: dict[str, Callable[[], list[Question]]] = {
    "claims": lambda: [
        q for seed in range(1, 4) for q in tasks.claims("train", seed)
    ],
    "clues": lambda: list(tasks.clues("train")),
}
"""The training questions of each task. Claims are drawn three times, and each time other ones are
false."""

OBJECTIVES = ("rag-sequence", "rag-token", "closed-book")
MOVES = {"biases": 2e-3, "layers": 3e-4}
"""The sets of parameters that can be trained, with their peak learning rates."""


@dataclass(frozen=True)
class Stage:
    """`steps` updates with `batch` targets, each with its `n_docs` nearest passages."""

    n_docs: int
    batch: int
    steps: int


STAGES = (Stage(1, 32, 250), Stage(5, 16, 100))


def task_retriever(
    task: str = "claims", folder: Path = Path("build/index")
) -> Retriever:
    """The retriever for a task: the embedded encoder for claims, BM25 for names.

    An encoder of sentences knows little about a bare name, while BM25 only has to match it. The
    encoder's index is built in `folder` if it is not there.
    """
    from ragbook.index import build_index
    from ragbook.retrieval import BM25Retriever, DenseRetriever

    if task == "clues":
        return BM25Retriever(miniwiki.corpus())
    encoder = load_encoder()
    index = build_index(miniwiki.corpus(), folder, encoder, progress=False)
    return DenseRetriever(index, encoder)


def own_tensors(model: Any, moves: str) -> dict[str, nn.Parameter]:
    """The trained parameters by name: biases and layer norms, or all of the upper layers.

    The word embeddings and the output layer's bias are not trained.
    """
    if moves == "biases":
        parts = {"encoder": model.encoder, "decoder": model.decoder}
        return {
            f"{at}.{n}": p
            for at, part in parts.items()
            for n, p in small_parameters(part).items()
        }
    frozen = tuple(
        f"encoder.encoder.layer.{layer}." for layer in range(FROZEN_LAYERS)
    )
    below = (*frozen, "encoder.embeddings.", "encoder.pooler.")
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if not name.startswith(below)
        and model.config.decoder.vocab_size not in parameter.shape
    }


def log_likelihood(
    objective: str,
    reader: SeqReader,
    shown: Sequence[tuple[Question, Retrieved]],
    score_scale: float,
) -> Tensor:
    """log p(first answer | question) under `objective`, nats, float32 [B], with gradients.

    All questions have the same number of passages. The closed-book reader does not read them, so there is
    no sum over passages.
    """
    questions = [question for question, _ in shown]
    if objective == "closed-book":
        none = [[None]] * len(shown)
        return marginal_log_likelihood(
            "rag-sequence", reader, questions, none, torch.zeros(len(shown), 1)
        )
    found = [retrieved for _, retrieved in shown]
    return marginal_log_likelihood(
        objective,
        reader,
        questions,
        [retrieved.passages for retrieved in found],
        doc_log_probs(found, score_scale),
    )


def train_task(
    task: str,
    model: Any,
    questions: Sequence[Question],
    retriever: Retriever,
    run: Run,
    objective: str = "rag-sequence",
    moves: str = "biases",
) -> dict[str, Tensor]:
    """Train `model` on one task, or resume, as `run` says where and in which precision; returns the
    trained tensors by name, bfloat16.

    Parameters
    ----------
    model: where training starts; changed in place.
    questions: their first answers are the targets.
    moves: a key of `MOVES`.
    """
    reader = SeqReader(model, minilm_tokenizer(), task)
    quicken(model, run.device, run.precision)
    for parameter in model.parameters():
        parameter.requires_grad = False
    own = own_tensors(model, moves)
    for parameter in own.values():
        parameter.requires_grad = True
    set_dropout(model, 0.0 if moves == "biases" else 0.1)
    source = QuestionSet(task, "train", questions).sha256
    for number, stage in enumerate(STAGES):
        found = retriever.retrieve(questions, stage.n_docs)
        pairs = list(zip(questions, found, strict=True))

        def batch_loss(
            step: int,
            number: int = number,
            stage: Stage = stage,
            pairs: Sequence = pairs,
        ) -> tuple[Tensor, dict[str, float]]:
            torch.manual_seed(
                step + 1_000_003 * run.seed
            )  # the same dropout in a resumed run
            shown = random.Random(f"{run.seed}-{number}-{step}").sample(
                pairs, stage.batch
            )
            likelihood = log_likelihood(
                objective, reader, shown, retriever.score_scale
            )
            loss = -likelihood.mean()
            return loss, {"nll": loss.item()}

        rate = MOVES[moves] / 2**number
        train(
            f"{task}-{stage.n_docs}",
            batch_loss,
            MasterAdamW(
                [(list(own.values()), rate)], 0.0 if moves == "biases" else 0.01
            ),
            run.cut(stage.steps),
            run.work,
            warmup=20,
            fingerprint=json.dumps(
                [
                    task,
                    objective,
                    moves,
                    run.cut(stage.steps),
                    rate,
                    run.seed,
                    source,
                ]
            ),
        )
    return {name: p.detach().bfloat16().contiguous() for name, p in own.items()}


def base() -> str:
    """The hashes of the shared reader's files, which tell what reader the tensors belong to."""
    files = manifest()["files"]
    return " ".join(
        files[f"{part}.safetensors"]["sha256"]
        for part in ("encoder", "decoder")
    )


def recipe(
    task: str, run: Run, objective: str = "rag-sequence", moves: str = "biases"
) -> None:
    """Train the bundled reader on a task and write `TASK.safetensors` into `run.out`.

    Raises
    ------
    InputError: there is no such task, objective or set of parameters.
    """
    for given, known in (
        (task, TASKS),
        (objective, OBJECTIVES),
        (moves, MOVES),
    ):
        if given not in known:
            raise InputError(
                f"{given!r} is unknown; choose from {', '.join(known)}."
            )
    run.begin()
    retriever = task_retriever(task, run.work / "index")
    own = train_task(
        task, reader_model(), TASKS[task](), retriever, run, objective, moves
    )
    write_tensors(run.out / f"{task}.safetensors", own, base=base())
    write_manifest(run.out)


if __name__ == "__main__":
    recipe(sys.argv[1], Run(Path(sys.argv[2]), resume=True), *sys.argv[3:])
