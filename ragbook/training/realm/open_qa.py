r"""REALM's fine-tuning on open question answering (Guu et al. 2020, section 4.3; ORQA, section 6).

The passages' vectors and the index do not change; the question tower and the span scorer are
trained from pairs of question and answer. The loss has two terms:

* the reader's: the likelihood of the answer among the spans of the k best passages, either
  REALM's \(\sum_z p(z \mid x) \sum_s p(s \mid z, x)\) or ORQA's one softmax over passages and spans
  (`methods.realm.joint`);
* the retriever's: \(-\log \sum_{z \ni y} p(z \mid x)\), the probability of the passages that hold
  the answer among many more passages. It needs no reading, and trains the question tower even while
  the reader's k passages rarely hold the answer.

A term is left out for a question if none of the passages holds the answer. In REALM's form the
reader is also trained to say "not here" for a passage that does not hold the answer, as in
`training.reader.objectives`; in ORQA's form the common softmax does this.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.corpus.answers import has_answer
from ragbook.errors import InputError
from ragbook.index import PassageIndex
from ragbook.methods.realm import joint, marginal_log_prob
from ragbook.models import Encoder
from ragbook.models.span import SpanScorer
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.rag import trainable_prior
from ragbook.training.reader.objectives import IMPOSSIBLE, answer_spans
from ragbook.training.reader.train import collate
from ragbook.training.reader.worlds import Example
from ragbook.training.realm import cloze


@dataclass(frozen=True)
class QaRecipe:
    """The settings of fine-tuning; the defaults are those of `ragbook train realm`.

    Parameters
    ----------
    objective: `realm` or `orqa`, how the reader's sum is normalised.
    k: passages that are read for each question.
    wide: passages in the retriever's term; the paper has 5,000 of 13 million.
    batch: questions in one update.
    steps: number of updates.
    query_rate, scorer_rate: peak learning rates. The first suits a projection; a whole tower needs
        a hundredth of it.
    """

    objective: str = "realm"
    k: int = 5
    wide: int = 100
    batch: int = 16
    steps: int = 100
    query_rate: float = 3e-3
    scorer_rate: float = 2e-4


@dataclass(frozen=True)
class Terms:
    """The log-likelihoods of B questions: each float32 [B], at most 0, and 0 where it is left out.

    `reader` and `retriever` are the two terms of the module's loss without their minus; `silence`
    is log p(not here), summed over the passages that do not hold the answer.
    """

    reader: Tensor
    retriever: Tensor
    silence: Tensor

    @property
    def loss(self) -> Tensor:
        """Minus the sum of all three, averaged over the questions: a scalar."""
        return -(self.reader + self.retriever + self.silence).mean()


def terms(
    model: Any,
    scorer: SpanScorer,
    tokenizer: Any,
    encoder: Encoder,
    index: PassageIndex,
    questions: Sequence[Question],
    recipe: QaRecipe,
) -> Terms:
    """The terms of the loss, with gradients to the question tower and the scorer.

    Parameters
    ----------
    model: the span reader's encoder, called without gradients; on one device with the others.
    encoder: retrieves from `index` with its question tower.
    """
    wide = max(recipe.wide, recipe.k)
    log_prior, positions = trainable_prior(encoder, index, [q.text for q in questions], wide)
    found = [[index.corpus[at] for at in row] for row in positions.tolist()]
    holds = torch.tensor(
        [
            [has_answer(p.text, q.answers) for p in row]
            for q, row in zip(questions, found, strict=True)
        ]
    )
    device = log_prior.device
    right = log_prior.masked_fill(~holds.to(device), IMPOSSIBLE).logsumexp(-1)
    retriever = right.where(holds.any(-1).to(device), 0.0)

    n = min(recipe.k, log_prior.shape[1])
    narrow = log_prior[:, :n].log_softmax(-1)
    first = [next((z for z in range(n) if row[z]), None) for row in holds.tolist()]
    examples = [
        Example(question, tuple(row[:n]), gold)
        for question, row, gold in zip(questions, found, first, strict=True)
    ]
    batch = collate(tokenizer, examples, scorer.max_span)
    reads = answer_spans(batch, scorer.max_span).to(device)
    batch = batch.to(device)
    with torch.no_grad():
        states = model(**batch.inputs).last_hidden_state.float()
    scores = scorer(states, batch.passage_mask)
    reader, silence = OBJECTIVES[recipe.objective](scores, reads, narrow)
    any_reads = reads.flatten(1).any(-1).reshape(-1, n).any(-1)
    return Terms(reader.where(any_reads, 0.0), retriever, silence)


def _realm(scores: Tensor, reads: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """REALM's sum, and log p(not here) of the passages that do not hold the answer."""
    spans = scores.flatten(1).log_softmax(-1)
    right = reads.flatten(1)
    given = spans.masked_fill(~right, IMPOSSIBLE).logsumexp(-1).reshape(prior.shape)
    silence = spans[:, 0] * ~right.any(-1)  # the span of [CLS]
    return marginal_log_prob(given, prior), silence.reshape(prior.shape).sum(-1)


def _orqa(scores: Tensor, reads: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """ORQA's sum, without the span at [CLS]. The second result is 0, as the common softmax already
    trains all other spans to score low."""
    scores = scores.clone()
    scores[:, 0, 0] = float("-inf")
    spans, weighed = joint(scores.reshape(*prior.shape, -1), prior)
    right = reads.reshape(spans.shape)
    given = spans.masked_fill(~right, IMPOSSIBLE).logsumexp(-1)
    return marginal_log_prob(given, weighed), torch.zeros_like(prior[:, 0])


OBJECTIVES = {"realm": _realm, "orqa": _orqa}
"""How the reader's sum is normalised."""


def train_open_qa(
    model: Any,
    scorer: SpanScorer,
    tokenizer: Any,
    encoder: Encoder,
    index: PassageIndex,
    questions: Sequence[Question],
    work: Path,
    recipe: QaRecipe = QaRecipe(),
    seed: int = 0,
    progress: bool | None = None,
) -> None:
    """Train `scorer` and `encoder.query_model` in place, or resume their training.

    Parameters
    ----------
    model: the span reader's encoder, which is not changed.
    encoder: its question tower must not be its passage tower; see `Encoder.untied`.
    index: built with the encoder's passage tower.
    questions: each has at least one answer; gold passages are not used.
    work: folder of checkpoints and the log.

    Raises
    ------
    InputError: another encoder built the index, the recipe names no objective, or `work` holds a
        run with other settings.
    """
    if recipe.objective not in OBJECTIVES:
        raise InputError(
            f"there is no objective {recipe.objective!r}; choose from {', '.join(OBJECTIVES)}"
        )
    index.check_encoder(encoder)
    cloze.freeze_bodies(encoder)
    encoder.passage_model.requires_grad_(False)
    query = [p for p in encoder.query_model.parameters() if p.requires_grad]
    scorer.requires_grad_(True)

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        shown = random.Random(f"{seed}-qa-{step}").choices(questions, k=recipe.batch)
        found = terms(model, scorer, tokenizer, encoder, index, shown, recipe)
        parts = {"reader": found.reader, "retriever": found.retriever, "silence": found.silence}
        return found.loss, {name: -part.mean().item() for name, part in parts.items()}

    train(
        f"qa-{recipe.objective}",
        batch_loss,
        MasterAdamW(
            [(query, recipe.query_rate), (list(scorer.parameters()), recipe.scorer_rate)],
            weight_decay=0.0,
        ),
        recipe.steps,
        work,
        warmup=max(1, recipe.steps // 8),
        fingerprint=json.dumps([repr(recipe), seed, _sha256(questions), index.digest]),
        progress=progress,
    )


def _sha256(questions: Sequence[Question]) -> str:
    said = repr([(q.text, q.answers) for q in questions])
    return hashlib.sha256(said.encode()).hexdigest()
