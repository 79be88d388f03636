"""The recipe that makes the files of `ragbook/models/weights`, or adapts them to your own data."""

from __future__ import annotations

import torch
from torch import Tensor

from ragbook.corpus import miniwiki
from ragbook.models import load_encoder, load_language_model
from ragbook.models.bundled import (
    fill,
    new_reader_model,
    reader_model,
    span_scorer,
    tensors,
    tuned_for_answers,
    write_manifest,
)
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.span import SpanScorer
from ragbook.training.loop import write_tensors
from ragbook.training.reader.curriculum import curriculum, fine_tuning
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.memory import train_memory
from ragbook.training.reader.objectives import METHODS, Recipe, train_method
from ragbook.training.reader.train import train_reader
from ragbook.training.run import Run

SHARED = ("encoder", "decoder", "span")
"""The files of the shared reader."""


def recipe(run: Run) -> None:
    """`ragbook train reader`: write the shared reader's files, then each method's own, into
    `run.out`.

    Without `run.own`, the embedded encoder is trained to become the bundled readers. With it, the
    bundled readers are trained further on your own passages and questions.
    """
    run.begin()
    torch.manual_seed(run.seed)
    tokenizer = minilm_tokenizer()
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    source = GoldExamples(corpus, questions, str(run.where))
    if run.own is None:
        model, scorer = new_reader_model(), SpanScorer(384)
        stages = curriculum(tokenizer, source)
    else:
        model, scorer = reader_model(), span_scorer(384)
        stages = fine_tuning(tokenizer, source)
    shared = train_reader(model, scorer, stages, run)
    _finish(run, source, shared)


def methods_recipe(run: Run, settings: Recipe | None = None) -> None:
    """`ragbook train methods`: each method by its own objective, from the bundled shared reader, on
    MiniWiki's train questions or your own; see `ragbook.training.reader.objectives`.

    `run.out` then holds the shared reader's files too, so that it can be named as a reader.
    `settings` are by default those of the command.
    """
    run.begin()
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    source = GoldExamples(corpus, questions, str(run.where))
    _finish(run, source, {file: tensors(f"{file}.safetensors") for file in SHARED}, settings)


def _finish(
    run: Run,
    source: GoldExamples,
    shared: dict[str, dict[str, Tensor]],
    settings: Recipe | None = None,
) -> None:
    """Train every method from the shared reader, and write all files into `run.out`. `weights.json`
    comes last: a folder without it is not complete."""
    model, scorer = new_reader_model(), SpanScorer(384)
    for part, file in zip((model.get_encoder(), model.decoder, scorer), SHARED, strict=True):
        fill(part, {name: tensor.float() for name, tensor in shared[file].items()})
    encoder = load_encoder()
    files = dict(shared)
    for method in METHODS:
        files[method] = train_method(method, model, scorer, encoder, source, run, settings)
    lam, temperature = tuned_for_answers().values()
    lm = load_language_model()
    files["knn-lm"] = train_memory(lm, lam, temperature, encoder, source, run, settings)
    for file, each in files.items():
        compact = {name: tensor.bfloat16().contiguous() for name, tensor in each.items()}
        write_tensors(run.out / f"{file}.safetensors", compact)
    write_manifest(run.out)
