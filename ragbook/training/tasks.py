r"""Teaches the shared reader to check claims and to write clues, by RAG's own marginal likelihood.

Nothing but the data differs from answering questions (Lewis et al. 2020, sections 2.4, 3.3, 3.4):
the retriever finds passages for the claim or the name, each is read beside it, and
\(\log p(y \mid x)\), the passages marginalised, is raised. A claim's label is one token, for which
RAG-Sequence and RAG-Token are the same sum over passages; a clue is a sentence, for which they
differ. First the one nearest passage is shown, which is cheap and mostly the right one, then five.

Two things can move. The biases and layer norms of encoder and decoder (BitFit, Ben Zaken et al.
2022) make a file of some 100 kB; the upper layers whole are as large as the reader's own files.

`python -m ragbook.training.tasks TASK OUT [OBJECTIVE [MOVES]]` trains with TASK `claims` or
`clues`, OBJECTIVE `rag-sequence`, `rag-token` or `closed-book`, MOVES `biases` or `layers`.
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
from torch.nn.utils.rnn import pad_sequence

from ragbook.corpus import Question, QuestionSet, miniwiki, tasks
from ragbook.errors import InputError
from ragbook.methods import rag
from ragbook.methods.base import doc_log_probs
from ragbook.models import load_encoder
from ragbook.models.bundled import manifest, reader_model, write_manifest
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.prompts import pair
from ragbook.retrieval import Retrieved, Retriever
from ragbook.training.loop import MasterAdamW, train, write_tensors
from ragbook.training.reader import (
    FROZEN_LAYERS,
    TRAIN_INPUT,
    quicken,
    set_dropout,
    shift_right,
)
from ragbook.training.run import Run

TASKS: dict[str, Callable[[], list[Question]]] = {
    "claims": lambda: [q for seed in range(1, 4) for q in tasks.claims("train", seed)],
    "clues": lambda: list(tasks.clues("train")),
}
"""What each task is taught from. Claims are drawn three times, each time other ones false."""

OBJECTIVES = ("rag-sequence", "rag-token", "closed-book")
MOVES = {"biases": 2e-3, "layers": 2e-4}
"""What may move, with its peak learning rate."""


@dataclass(frozen=True)
class Stage:
    """`steps` of `batch` targets, each with its `n_docs` nearest passages."""

    n_docs: int
    batch: int
    steps: int


STAGES = (Stage(1, 32, 450), Stage(5, 16, 90))


def task_retriever(task: str, folder: Path) -> Retriever:
    """What finds a task's passages: the embedded encoder for claims, BM25 for names.

    An encoder of sentences knows little of a bare name, and BM25 needs to know nothing of it. The
    encoder's index is built in `folder`, if it is not there.
    """
    from ragbook.index import build_index
    from ragbook.retrieval import BM25Retriever, DenseRetriever

    if task == "clues":
        return BM25Retriever(miniwiki.corpus())
    encoder = load_encoder()
    index = build_index(miniwiki.corpus(), folder, encoder, progress=False)
    return DenseRetriever(index, encoder)


def own_tensors(model: Any, moves: str) -> dict[str, nn.Parameter]:
    """What may move, by name: the biases and layer norms, or all of the upper layers.

    The word embeddings stay, and so does the output layer's bias over the vocabulary.
    """
    chosen: dict[str, nn.Parameter] = {}
    frozen = tuple(f"encoder.encoder.layer.{layer}." for layer in range(FROZEN_LAYERS))
    for name, parameter in model.named_parameters():
        if model.config.decoder.vocab_size in parameter.shape:
            continue
        below = name.startswith((*frozen, "encoder.embeddings.", "encoder.pooler."))
        if parameter.dim() == 1 if moves == "biases" else not below:
            chosen[name] = parameter
    return chosen


def log_likelihood(
    objective: str,
    model: Any,
    tokenizer: Any,
    shown: Sequence[tuple[Question, Retrieved]],
    score_scale: float,
) -> Tensor:
    """log p(first answer | question) under `objective`, float32 [B], with gradients.

    All questions show the same number of passages; the closed book shows none of them.
    """
    questions = [question for question, _ in shown]
    if objective == "closed-book":
        n, log_prior = 1, torch.zeros(len(shown), 1)
        rows = [(q.text, None) for q in questions]
    else:
        n, log_prior = len(shown[0][1].ids), doc_log_probs([r for _, r in shown], score_scale)
        rows = [(q.text, passage) for q, found in shown for passage in found.passages]
    read = pair(tokenizer, [q for q, _ in rows], [p for _, p in rows], max_input=TRAIN_INPUT)
    answers = tokenizer([q.answers[0] for q in questions], add_special_tokens=False)["input_ids"]
    targets = pad_sequence(
        [torch.tensor([*answer, tokenizer.sep_token_id]) for answer in answers], True, -100
    )
    labels = targets.repeat_interleave(n, 0)
    out = model.decoder(
        input_ids=shift_right(labels, model.config.decoder_start_token_id, 0),
        encoder_hidden_states=model.encoder(**read.tensors).last_hidden_state,
        encoder_attention_mask=read.mask,
        use_cache=False,
    )
    logits = out.logits.float()
    chosen = logits.gather(-1, labels.clamp_min(0)[:, :, None]).squeeze(-1) - logits.logsumexp(-1)
    marginal = rag.token_log_prob if objective == "rag-token" else rag.sequence_log_prob
    return marginal(chosen.reshape(len(shown), n, -1), log_prior, targets != -100)


def train_task(
    task: str,
    model: Any,
    questions: Sequence[Question],
    retriever: Retriever,
    run: Run,
    objective: str = "rag-sequence",
    moves: str = "biases",
) -> dict[str, Tensor]:
    """Train or resume `model` on one task; returns what moved, bfloat16, by the model's names.

    Parameters
    ----------
    model: where training starts; changed in place.
    questions: with the targets as their first answers.
    """
    tokenizer = minilm_tokenizer()
    quicken(model)
    for parameter in model.parameters():
        parameter.requires_grad = False
    own = own_tensors(model, moves)
    for parameter in own.values():
        parameter.requires_grad = True
    set_dropout(model, 0.0)
    source = QuestionSet(task, "train", questions).sha256
    for number, stage in enumerate(STAGES):
        found = retriever.retrieve(questions, stage.n_docs)
        pairs = list(zip(questions, found, strict=True))

        def batch_loss(
            step: int, number: int = number, stage: Stage = stage, pairs: Sequence = pairs
        ) -> tuple[Tensor, dict[str, float]]:
            shown = random.Random(f"{run.seed}-{number}-{step}").sample(pairs, stage.batch)
            likelihood = log_likelihood(objective, model, tokenizer, shown, retriever.score_scale)
            loss = -likelihood.mean()
            return loss, {"nll": loss.item()}

        rate = MOVES[moves] / 2**number
        train(
            f"{task}-{stage.n_docs}",
            batch_loss,
            MasterAdamW([(list(own.values()), rate)], 0.0 if moves == "biases" else 0.01),
            run.cut(stage.steps),
            run.work,
            warmup=20,
            fingerprint=json.dumps(
                [task, objective, moves, run.cut(stage.steps), rate, run.seed, source]
            ),
        )
    return {name: p.detach().bfloat16().contiguous() for name, p in own.items()}


def base() -> str:
    """Which shared reader the tasks' own tensors belong to: its files' hashes."""
    files = manifest()["files"]
    return " ".join(files[f"{part}.safetensors"]["sha256"] for part in ("encoder", "decoder"))


def recipe(task: str, run: Run, objective: str = "rag-sequence", moves: str = "biases") -> None:
    """From the bundled reader to `TASK.safetensors` in `run.out`.

    Raises
    ------
    InputError: there is no such task, objective or choice of what moves.
    """
    for given, known in ((task, TASKS), (objective, OBJECTIVES), (moves, MOVES)):
        if given not in known:
            raise InputError(f"{given!r} is none of {', '.join(known)}.")
    run.begin()
    retriever = task_retriever(task, run.work / "index")
    own = train_task(task, reader_model(), TASKS[task](), retriever, run, objective, moves)
    write_tensors(run.out / f"{task}.safetensors", own, base=base())
    write_manifest(run.out)


if __name__ == "__main__":
    recipe(sys.argv[1], Run(Path(sys.argv[2]), resume=True), *sys.argv[3:])
