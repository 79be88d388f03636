r"""Trains a dual encoder: DPR (Karpukhin et al. 2020, section 3).

Two towers start from an encoder, one to read questions and one to read passages. A batch
shows B questions with their right passages and, for each, a passage that BM25 ranks high and that
holds no answer (a hard negative). Every question is scored with every passage of the batch, and the
loss is lowest when its own passage has the highest score. So the passages of the other questions
serve as negatives at no cost.

The right passage is the question's gold one; where none is known, it is the first of BM25's best
that holds an answer (distant supervision, section 4.2). A passage of the batch is no negative for a
question whose answer it holds, or for which it is the second gold passage.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ragbook.corpus import Corpus, Passage, Question, QuestionSet, miniwiki
from ragbook.corpus.answers import has_answer
from ragbook.corpus.gold import gold_passage, missing_sentence, placed
from ragbook.errors import InputError
from ragbook.models.devices import choose_precision, device_of, name_of
from ragbook.models.encoder import Encoder, load_encoder, save_encoder
from ragbook.models.towers import SCORE_SCALES
from ragbook.retrieval import BM25Retriever
from ragbook.training.contrastive import LOSSES, accuracy
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.run import Run

_T = TypeVar("_T")

DEPTH = 100
"""How many of BM25's best passages are searched for a hard negative or, without a gold passage, for
a right one, as in the paper."""


_LAYER = re.compile(r"(?:^|\.)(?:layers?|block|h|albert_layers)\.(\d+)\.")
_EMBEDDINGS = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe|shared)\.")
"""Names in transformers' models of their layers, and of the modules below the first layer."""

SCALES = SCORE_SCALES
"""Factors of the scores in the loss."""


@dataclass(frozen=True)
class Recipe:
    """The settings of DPR's training; the defaults are those of `ragbook train dpr`.

    Parameters
    ----------
    similarity: `dot`, `cosine` or `l2`.
    loss: `cross-entropy` or `hinge`.
    hard_negatives: passages of BM25 for each question, 0 or more.
    epochs: how often every question is shown.
    steps: the most updates, to try the recipe; None sets no limit.
    batch: questions in one update; 32 and their passages take about 1.5 GB.
    rate: peak learning rate.
    frozen_layers: layers from the bottom that are not trained; the embeddings are not either.
    dtype: what the towers compute in: `bfloat16`, `float32`, or `auto` for the faster of the two.
        In float32 the encoder's file is twice as large.
    """

    similarity: str = "cosine"
    loss: str = "cross-entropy"
    hard_negatives: int = 1
    epochs: int = 2
    steps: int | None = None
    batch: int = 32
    rate: float = 1e-4
    frozen_layers: int = 2
    dtype: str = "auto"

    @property
    def score_scale(self) -> float:
        """Factor of the scores in the loss; the encoder stores it, as p(z | x) needs it."""
        return SCALES[self.similarity]


@dataclass(frozen=True)
class Pair:
    """A question with its right passage and its hard negatives, in BM25's order."""

    question: Question
    passage: Passage
    negatives: tuple[Passage, ...]


@dataclass(frozen=True)
class QuestionBatch:
    """B questions and the P different passages of their batch."""

    questions: list[str]
    passages: list[Passage]
    gold: Tensor  # int64 [B]: the column of each question's right passage
    negatives: Tensor  # bool [B, P]: which passages count as wrong for it


def answers_question(passage: Passage, question: Question) -> bool:
    """Whether the passage may answer the question, so that it must not be used as a negative."""
    if passage.id in (*question.gold_passages, question.second_passage):
        return True
    return has_answer(passage.text, question.answers)


def pairs(corpus: Corpus, questions: Iterable[Question], hard_negatives: int = 1) -> list[Pair]:
    """The questions that can be used in training, each with its passages.

    A question is left out if it names no gold passage and BM25 finds none with an answer.

    Raises
    ------
    InputError: a gold passage is not in the corpus, or no question is left.
    """
    asked = placed(QuestionSet("", "", questions), corpus)
    if (sentence := missing_sentence(asked, corpus.name)) is not None:
        raise InputError(f"{sentence}; name the corpus that belongs to the questions.")
    bm25, out = BM25Retriever(corpus), []
    for question in asked:
        best: Sequence[Passage] = ()
        if hard_negatives or question.gold_passage is None:
            best = bm25.retrieve([question], DEPTH)[0].passages
        if question.gold_passage is None:
            passage = next((p for p in best if has_answer(p.text, question.answers)), None)
            if passage is None:
                continue
        else:
            passage = gold_passage(corpus, question)
            assert passage is not None  # none is missing
        wrong = [p for p in best if p.id != passage.id and not answers_question(p, question)]
        out.append(Pair(question, passage, tuple(wrong[:hard_negatives])))
    if not out:
        raise InputError(
            f"BM25 finds no passage with an answer to any of the questions in {corpus.name!r}; "
            "check that the questions belong to this corpus."
        )
    return out


def batch_of(shown: Sequence[Pair]) -> QuestionBatch:
    """The batch of these pairs; a passage that several of them have is in it once."""
    passages = dict.fromkeys(p for pair in shown for p in (pair.passage, *pair.negatives))
    column = {passage: at for at, passage in enumerate(passages)}
    gold = torch.tensor([column[pair.passage] for pair in shown])
    negatives = torch.tensor(
        [
            [p != pair.passage and not answers_question(p, pair.question) for p in passages]
            for pair in shown
        ]
    )
    return QuestionBatch([pair.question.text for pair in shown], list(passages), gold, negatives)


def epoch_batches(shown: Sequence[_T], size: int, seed: int, epoch: int) -> list[list[_T]]:
    """The examples in batches of `size`, shuffled differently in every epoch; examples that do not
    fill the last batch are left out in this epoch."""
    order = random.Random(f"{seed}-dpr-{epoch}").sample(range(len(shown)), len(shown))
    whole = max(1, len(shown) // size)
    return [[shown[at] for at in order[n * size : (n + 1) * size]] for n in range(whole)]


def freeze_lower_layers(tower: Any, frozen_layers: int, dtype: torch.dtype) -> None:
    """Put a tower into the format that it is trained in, choose quick attention, and freeze what
    stays as it is: the embeddings, `frozen_layers` layers from the bottom, but never the last one,
    and what is frozen already. What stands above the layers is trained, and so is all of a tower
    without layers."""
    transformer = getattr(tower, "transformers_model", None) or tower  # of a SentenceTransformer
    if hasattr(transformer, "set_attn_implementation"):
        transformer.set_attn_implementation("eager")  # on CPUs it trains faster at these lengths
    tower.to(dtype)
    layers = {name: _LAYER.search(name) for name, _ in tower.named_parameters()}
    numbers = {name: int(layer[1]) for name, layer in layers.items() if layer is not None}
    frozen_layers = min(frozen_layers, max(numbers.values(), default=0))
    for name, parameter in tower.named_parameters():
        below = _EMBEDDINGS.search(name) is not None and bool(numbers)
        if numbers.get(name, -1 if below else frozen_layers) < frozen_layers or below:
            parameter.requires_grad = False


def batch_loss(
    encoder: Encoder, batch: QuestionBatch, recipe: Recipe
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch, and figures to log: loss and accuracy."""
    queries = encoder.query_vectors(batch.questions)
    passages = encoder.passage_vectors(batch.passages)
    scores = recipe.score_scale * encoder.scores(queries, passages)
    gold, negatives = batch.gold.to(scores.device), batch.negatives.to(scores.device)
    loss = LOSSES[recipe.loss](scores, gold, negatives)
    right = accuracy(scores.detach(), gold, negatives)
    return loss, {"loss": loss.item(), "accuracy": right}


def train_dpr(
    shown: Sequence[Pair],
    out: Path,
    recipe: Recipe = Recipe(),
    seed: int = 0,
    progress: bool | None = None,
    start: Encoder | None = None,
) -> Encoder:
    """Train a dual encoder, or resume its training, write it into `out` and load it.

    Parameters
    ----------
    shown: the training examples (see `pairs`).
    out: folder of the encoder; checkpoints and the log are in its subfolder `work`.
    recipe: the settings.
    seed: of the order in which questions are shown.
    start: the encoder that is trained, the embedded one if none is given; it stays as it is. The
        training runs where it is.

    Raises
    ------
    InputError: `out` holds a run with other settings.
    """
    start = load_encoder() if start is None else start
    dtype = choose_precision(recipe.dtype, device_of(start.passage_model))
    recipe = replace(recipe, dtype=name_of(dtype))
    encoder = _two_towers(start, recipe, str(out))
    towers = (encoder.passage_model, encoder.query_model)
    for tower in towers:
        freeze_lower_layers(tower, recipe.frozen_layers, dtype)
    per_epoch = len(epoch_batches(shown, recipe.batch, seed, 0))
    steps = recipe.epochs * per_epoch
    if recipe.steps is not None:
        steps = min(steps, recipe.steps)
    epochs: dict[int, list[list[Pair]]] = {}

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        epoch, at = divmod(step, per_epoch)
        if epoch not in epochs:
            epochs.clear()
            epochs[epoch] = epoch_batches(shown, recipe.batch, seed, epoch)
        return batch_loss(encoder, batch_of(epochs[epoch][at]), recipe)

    train(
        "dpr",
        loss_of,
        MasterAdamW([(tower.parameters(), recipe.rate) for tower in towers]),
        steps,
        out / "work",
        warmup=max(1, steps // 10),
        fingerprint=json.dumps(
            [repr(recipe), seed, _sha256(shown), start.sha256, start.query_sha256]
        ),
        progress=progress,
    )
    trained = _two_towers(start, recipe, str(out))
    for tower, whole in zip(towers, (trained.passage_model, trained.query_model), strict=True):
        # The frozen tensors were only rounded during the run; the encoder keeps the exact ones.
        changed = {n: p.detach().float() for n, p in tower.named_parameters() if p.requires_grad}
        whole.load_state_dict(changed, strict=False)
    save_encoder(out, trained)
    return load_encoder(str(out))


def _two_towers(start: Encoder, recipe: Recipe, name: str) -> Encoder:
    """An encoder with two copies of the tower or towers, and the recipe's similarity."""
    return start.changed(
        passage_model=deepcopy(start.passage_model),
        query_model=deepcopy(start.query_model),
        id=name,
        similarity=recipe.similarity,
        score_scale=recipe.score_scale,
    )


def recipe(
    run: Run,
    *,
    encoder: str = "minilm",
    similarity: str | None = None,
    loss: str = "cross-entropy",
    **conventions: str,
) -> None:
    """`ragbook train dpr`: writes an encoder into `run.out`, for `--encoder`. It learns from
    MiniWiki's train questions or your own.

    Parameters
    ----------
    encoder: the encoder to start from; `conventions` are further arguments of `load_encoder`.
    similarity: similarity of the trained encoder, by default the same.
    loss: see `Recipe`.
    """
    start = load_encoder(encoder, **conventions)
    run.begin()
    similarity, dtype = similarity or start.similarity, name_of(run.dtype)
    chosen = Recipe(similarity, loss, steps=run.steps, dtype=dtype)
    start.to(str(run.where))
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    shown = pairs(corpus, questions, chosen.hard_negatives)
    train_dpr(shown, run.out, chosen, run.seed, start=start)


def _sha256(shown: Sequence[Pair]) -> str:
    """A hash of the training examples."""
    said = repr([(p.question, p.passage.id, [n.id for n in p.negatives]) for p in shown])
    return hashlib.sha256(said.encode()).hexdigest()
