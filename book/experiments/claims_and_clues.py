"""How well the readers check claims and write clues, with and without passages.

`python -m book.experiments.claims_and_clues TASK SPLIT [READER_DIR [METHODS [OUT]]]` measures the
readers that `experiments.claims_and_clues_training` trained, with TASK `claims` or `clues` and
METHODS a comma-separated choice of `rag-sequence`, `rag-token` and `closed-book`, all three by
default:

* claims: how often the likelier label is right, with k = 1 and 5 passages, for all claims and for
  true and false ones separately; and how often the heaviest evidence is the passage that the claim
  is about;
* clues: nats a token of the reference questions, unigram F1 with them, and the round trip: how
  often the bundled reader answers a written question with the name that the question should ask
  for. A question that contains the name fails.

With OUT, the figures are stored as rows of that JSON file and replace the same command's old ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ragbook.corpus import Question, QuestionSet, miniwiki
from ragbook.errors import InputError
from ragbook.evaluation.metrics import exact_match, f1, has_answer
from ragbook.evaluation.statistics import bootstrap_ci
from ragbook.files import sha256_of_file, write_json
from ragbook.methods.base import Answer, Method
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import SeqReader, load_reader
from ragbook.models.bundled import (
    BUNDLED,
    fill,
    reader_model,
    tensors,
    weights_folder,
)
from ragbook.models.embedded import minilm_tokenizer
from ragbook.retrieval import Retriever

from . import claims_and_clues_data as tasks
from .claims_and_clues_training import base, task_retriever
from .report import percent

STORED = Path(__file__).with_name("claims.safetensors")
STORED_SHA256 = (
    "dc3a0266d1a22b2fd8e0f7713c722fbf728c2f482cdf9191d542b4895a0ad939"
)
"""The claims reader that the book uses, and the hash of its file."""

LABEL_LENGTH, CLUE_LENGTH = 2, 48
"""Longest targets in tokens: a label with the end token, and the longest question."""

_BATCH = 16
_METHODS = {"rag-sequence": RagSequence, "rag-token": RagToken}


def task_reader(task: str, reader: str = BUNDLED) -> SeqReader:
    """The bundled reader after training on one of the tasks: the one that comes with the book, or
    one from the folder of a training.

    Raises
    ------
    InputError: the folder has no such file, or one that was trained from another reader.
    """
    name, folder = f"{task}.safetensors", weights_folder(reader)
    if folder is None:
        raise InputError(
            f"{reader} holds no weights.json; name a folder that a training wrote."
        )
    path = folder / name
    if reader == BUNDLED:
        path = STORED
        if name != STORED.name or sha256_of_file(STORED) != STORED_SHA256:
            raise InputError(
                f"{STORED} is damaged or was trained on another task than {task}; name the folder "
                "of a training."
            )
        changed = {
            key: value.float() for key, value in load_file(str(STORED)).items()
        }
    else:
        changed = tensors(name, folder)
    with safe_open(str(path), "pt") as file:
        if (file.metadata() or {}).get("base") != base():
            raise InputError(
                f"{path} belongs to another reader than the bundled one; train it again."
            )
    model = reader_model()
    fill(model, changed)
    return SeqReader(model, minilm_tokenizer(), name)


def methods(
    task: str, reader: SeqReader, retriever: Retriever, names: Sequence[str]
) -> list[Method]:
    """The named methods with the task's reader and the maximum length of its targets."""
    length = LABEL_LENGTH if task == "claims" else CLUE_LENGTH
    return [
        ClosedBook(reader, max_length=length)
        if name == "closed-book"
        else _METHODS[name](reader, retriever, max_length=length)
        for name in names
    ]


def label_log_probs(
    method: Method, claims: Sequence[Question], k: int
) -> torch.Tensor:
    """log p(label | claim) of "true" and "false", nats, float32 [B, 2]."""
    labels = [
        method.log_prob(claims, [label] * len(claims), k)
        for label in tasks.LABELS
    ]
    return torch.stack(labels, 1)


def classify(
    method: Method, claims: Sequence[Question], k: int = 5
) -> list[str]:
    """The likelier label of each claim."""
    return [
        tasks.LABELS[at]
        for at in label_log_probs(method, claims, k).argmax(1).tolist()
    ]


def _batches(questions: Sequence[Question]) -> list[Sequence[Question]]:
    return [
        questions[at : at + _BATCH] for at in range(0, len(questions), _BATCH)
    ]


def row(metric: str, values: Sequence[float], **what: Any) -> dict[str, Any]:
    """One figure: the mean of one value for each question, their number, and the 95% interval."""
    low, high = bootstrap_ci(values)
    return {
        **what,
        "metric": metric,
        "n": len(values),
        "value": float(np.mean(values)),
        "ci95": [low, high],
    }


def _on_gold(answer: Answer, question: Question) -> bool:
    return (
        max(answer.evidence, key=lambda e: e.weight).passage_id
        == question.gold_passage
    )


def measure_claims(
    checking: Sequence[Method], claims: QuestionSet, k: int
) -> list[dict[str, Any]]:
    """Accuracy on all claims, on true and on false ones; evidence on the gold passage.

    All methods take one batch before the next, so that the pairs they share are encoded once.
    """
    right: dict[str, list[float]] = {method.name: [] for method in checking}
    gold: dict[str, list[float]] = {
        method.name: [] for method in checking if method.retriever
    }
    for batch in _batches(claims):
        for method in checking:
            given = classify(method, batch, k)
            right[method.name] += [
                g == q.answers[0] for g, q in zip(given, batch, strict=True)
            ]
            if method.retriever:
                answers = method.answer(batch, k)
                gold[method.name] += [
                    _on_gold(*pair) for pair in zip(answers, batch, strict=True)
                ]
    rows = []
    for metric, values in (
        ("accuracy", right),
        ("evidence on the gold passage", gold),
    ):
        for name, own in values.items():
            rows.append(row(metric, own, model=name))
            for label in tasks.LABELS:
                mine = [
                    v
                    for v, q in zip(own, claims, strict=True)
                    if q.answers[0] == label
                ]
                rows.append(row(f"{metric}, {label} claims", mine, model=name))
    return rows


def round_trip(
    reader: Method, written: Sequence[str], names: Sequence[Sequence[str]]
) -> list[bool]:
    """Whether the reader answers each written question with one of its names; False if the question
    contains the name."""
    out: list[bool] = []
    for batch in _batches([Question(text or "?", ()) for text in written]):
        out += [
            exact_match(answer.text, known)
            and not has_answer(question.text, known)
            for question, answer, known in zip(
                batch,
                reader.answer(batch),
                names[len(out) : len(out) + len(batch)],
                strict=True,
            )
        ]
    return out


def names_of(clues: QuestionSet) -> list[tuple[str, ...]]:
    """All answers that count as right to each clue's question."""
    asked = {
        question.text: question for question in miniwiki.questions(clues.split)
    }
    return [asked[clue.answers[0]].answers for clue in clues]


def measure_clues(
    writing: Sequence[Method],
    clues: QuestionSet,
    k: int,
    reader: Method,
    tokenizer: Any,
) -> list[dict[str, Any]]:
    """Nats a token, F1 and round trip of the questions that each method writes; `reader` answers
    them.

    Nats are of the first question that asks for the name; F1 is with the most similar one.
    """
    nll: dict[str, list[float]] = {method.name: [] for method in writing}
    written: dict[str, list[str]] = {method.name: [] for method in writing}
    for batch in _batches(clues):
        targets = [clue.answers[0] for clue in batch]
        tokens = tokenizer(targets, add_special_tokens=False)["input_ids"]
        for method in writing:
            log_probs = method.log_prob(batch, targets, k).tolist()
            nll[method.name] += [
                -p / (len(ids) + 1)
                for p, ids in zip(log_probs, tokens, strict=True)
            ]
            written[method.name] += [
                answer.text for answer in method.answer(batch, k)
            ]
    names, rows = names_of(clues), []
    for name, texts in written.items():
        told = [
            has_answer(text, known)
            for text, known in zip(texts, names, strict=True)
        ]
        like = [
            f1(text, clue.answers)
            for text, clue in zip(texts, clues, strict=True)
        ]
        rows += [
            row("nats a token", nll[name], model=name),
            row("f1", like, model=name),
            row("round trip", round_trip(reader, texts, names), model=name),
            row("tells the name", told, model=name),
        ]
    return rows


def record(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows into a JSON file, where they replace those of the same commands."""
    kept = (
        json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    )
    commands = {new["command"] for new in rows}
    kept = [old for old in kept if old["command"] not in commands]
    write_json(path, [*kept, *rows], indent=1)


def table(
    rows: Sequence[dict[str, Any]], task: str
) -> dict[str, dict[str, str]]:
    """A task's figures from the rows of `record`, by model and number of passages, then by metric:
    shares in percent, nats unchanged, with their intervals. Parts of a metric ("accuracy, true
    claims") are left out."""
    out: dict[str, dict[str, str]] = {}
    for one in rows:
        if one["task"] == task and "," not in one["metric"]:
            name = (
                one["model"]
                if one["k"] is None
                else f"{one['model']}, k = {one['k']}"
            )
            in_nats = one["metric"].startswith("nats")
            scale = 0.01 if in_nats else 1.0
            value = {
                "mean": scale * one["value"],
                "ci95": [scale * v for v in one["ci95"]],
            }
            out.setdefault(name, {})[one["metric"]] = percent(value)
    return out


def main(
    task: str,
    split: str = "dev",
    folder: str = BUNDLED,
    names: str = "rag-sequence,rag-token,closed-book",
    out: str | None = None,
) -> None:
    """Print one line for each figure; with `out`, record them too."""
    retriever = task_retriever(task)
    reader = task_reader(task, folder)
    answering = RagSequence(
        load_reader(method="rag-sequence"), task_retriever(), verbatim=True
    )
    command = f"python -m book.experiments.claims_and_clues {task} {split} {folder} {names}"
    chosen = methods(task, reader, retriever, names.split(","))
    retrieving = [method for method in chosen if method.retriever]
    rows: list[dict[str, Any]] = []

    def add(k: int | None, figures: Sequence[dict[str, Any]]) -> None:
        for figure in figures:
            low, high = figure["ci95"]
            where = f"{task} {split} {figure['model']:<13} {'' if k is None else f'k = {k}':<6}"
            value = f"{figure['value']:.3f} [{low:.3f}, {high:.3f}]"
            print(
                f"{where} n = {figure['n']:<5} {figure['metric']:<44} {value}",
                flush=True,
            )
            rows.append(
                {
                    "task": task,
                    "split": split,
                    "k": k,
                    **figure,
                    "command": command,
                }
            )

    for k in (None, 1, 5) if task == "claims" else (None, 5):
        asked = (
            [method for method in chosen if not method.retriever]
            if k is None
            else retrieving
        )
        if task == "claims":
            add(k, measure_claims(asked, tasks.claims(split), k or 1))
        else:
            clues = tasks.clues(split)
            add(
                k,
                measure_clues(
                    asked, clues, k or 1, answering, reader.tokenizer
                ),
            )
    if task == "clues":
        clues = tasks.clues(split)
        hits = round_trip(
            answering, [clue.answers[0] for clue in clues], names_of(clues)
        )
        add(None, [row("round trip", hits, model="reference")])
    if out:
        record(Path(out), rows)


if __name__ == "__main__":
    main(*sys.argv[1:6])
