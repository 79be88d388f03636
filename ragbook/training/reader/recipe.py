"""The recipe that makes the files of `ragbook/models/weights`, or adapts them to your own data."""

from __future__ import annotations

import torch

from ragbook.corpus import miniwiki
from ragbook.models.bundled import new_reader_model, reader_model, span_scorer, write_manifest
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.span import SpanScorer
from ragbook.training.loop import write_tensors
from ragbook.training.reader.curriculum import curriculum, fine_tuning
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.objectives import N_DOCS, train_objectives
from ragbook.training.reader.train import train_reader
from ragbook.training.run import Run


def recipe(run: Run) -> None:
    """`ragbook train reader`: write the shared reader's files, then each method's own, into
    `run.out`.

    Without `run.own`, the embedded encoder is trained to become the bundled readers. With it, the
    bundled readers are trained further on your own passages and questions. `weights.json` comes
    last: a folder without it is not complete.
    """
    run.begin()
    torch.manual_seed(run.seed)
    tokenizer = minilm_tokenizer()
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    source = GoldExamples(corpus, questions, str(run.where))
    found = source.found(N_DOCS)
    if run.own is None:
        model, scorer = new_reader_model(), SpanScorer(384)
        stages = curriculum(tokenizer, source)
    else:
        model, scorer = reader_model(), span_scorer(384)
        stages = fine_tuning(tokenizer, source)
    shared = train_reader(model, scorer, stages, run)
    methods = train_objectives(model, scorer, found, source.sha256, run)
    for file, tensors in (shared | methods).items():
        write_tensors(run.out / f"{file}.safetensors", tensors)
    write_manifest(run.out)
