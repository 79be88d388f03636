"""The inverse cloze task: a sentence should find the passage it was taken from (ORQA, section 5).

REALM's retriever starts from it (Guu et al. 2020, section 3.4). With a retriever that finds nothing
useful, pre-training cannot begin: no passage raises the likelihood, the gradient has no direction,
and the reader learns to ignore the passages. Here the sentence is the question, the rest of its
passage is the right passage, and the passages of the other sentences of the batch are wrong. One
time in ten the sentence stays in its passage, so that matching words is learned as well.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ragbook.corpus import Corpus, Passage
from ragbook.corpus.salient import sentences
from ragbook.errors import InputError
from ragbook.models import Encoder
from ragbook.training.contrastive import accuracy, cross_entropy
from ragbook.training.loop import MasterAdamW, train

KEPT = 0.1
"""How often the sentence stays in its passage, as in ORQA."""


@dataclass(frozen=True)
class ClozeRecipe:
    """The settings of the retriever's warm start: sentences in an update, updates, peak rate.

    The rate suits a projection; a whole tower needs a thirtieth of it.
    """

    batch: int = 24
    steps: int = 20
    rate: float = 3e-3


def train_cloze(
    encoder: Encoder,
    corpus: Corpus,
    work: Path,
    recipe: ClozeRecipe = ClozeRecipe(),
    seed: int = 0,
    progress: bool | None = None,
) -> None:
    """Train an encoder's towers in place, or resume; their parameters may be bfloat16.

    Raises
    ------
    InputError: no passage has two sentences, or `work` holds a run with other settings.
    """
    usable = [p for p in corpus if len(sentences(p.text)) > 1]
    if not usable:
        raise InputError(
            f"No passage of corpus {corpus.name!r} has two sentences, which the inverse cloze task "
            "needs; take longer passages."
        )
    size = min(recipe.batch, len(usable))
    freeze_bodies(encoder)

    def batch_loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = random.Random(f"{seed}-cloze-{step}")
        pairs = [taken_out(passage, rng) for passage in rng.sample(usable, size)]
        queries = encoder.query_vectors([sentence for sentence, _ in pairs])
        passages = encoder.passage_vectors([passage for _, passage in pairs])
        scores = encoder.score_scale * encoder.scores(queries, passages)
        gold = torch.arange(size, device=scores.device)
        wrong = ~torch.eye(size, dtype=torch.bool, device=scores.device)
        loss = cross_entropy(scores, gold, wrong)
        return loss, {"loss": loss.item(), "accuracy": accuracy(scores.detach(), gold, wrong)}

    train(
        "cloze",
        batch_loss,
        MasterAdamW([(list(parameters(encoder)), recipe.rate)]),
        recipe.steps,
        work,
        warmup=max(1, recipe.steps // 10),
        fingerprint=json.dumps([repr(recipe), seed, corpus.sha256, encoder.score_scale]),
        progress=progress,
    )


def taken_out(passage: Passage, rng: random.Random) -> tuple[str, Passage]:
    """A sentence of the passage, and the passage, nine times in ten without it."""
    spans = sentences(passage.text)
    first, last = rng.choice(spans)
    sentence = passage.text[first:last]
    if rng.random() < KEPT:
        return sentence, passage
    rest = f"{passage.text[:first].rstrip()} {passage.text[last:].lstrip()}".strip()
    return sentence, Passage(passage.id, passage.title, rest)


def freeze_bodies(encoder: Encoder) -> None:
    """Prepare the towers for training, the faster way on CPUs: everything is trained but embeddings
    and frozen bodies."""
    for tower in towers(encoder):
        tower.set_attn_implementation("eager")
        for name, parameter in tower.named_parameters():
            parameter.requires_grad = not re.search(r"\b(embeddings|body)\.", name)


def towers(encoder: Encoder) -> Sequence[Any]:
    """The encoder's towers: two, or the one that reads both."""
    both = (encoder.passage_model, encoder.query_model)
    return both[:1] if both[0] is both[1] else both


def parameters(encoder: Encoder) -> list[torch.nn.Parameter]:
    """The towers' trained parameters."""
    return [p for tower in towers(encoder) for p in tower.parameters() if p.requires_grad]
