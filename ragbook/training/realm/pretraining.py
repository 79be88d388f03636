r"""REALM's pre-training (Guu et al. 2020, section 3): retriever and masked reader, end to end.

A step shows masked sentences. The retriever finds k passages for each in the current index, except
the passage that the sentence comes from, and a null document is added to them. Retriever and reader
then give, over these candidates,

\[ \log p(y \mid x) = \log \sum_z p(y \mid z, x)\, p(z \mid x), \]

whose gradient trains both. It is not given which passage is right: a passage's score rises where it
predicts the hidden span better than the candidates do on average (`methods.realm.score_gradient`).
The candidates' vectors are computed again, with gradients; only the search uses the index, which is
built again every `refresh` updates, in the trainer or in a second process (see `refresh`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ragbook.corpus import Corpus
from ragbook.errors import InputError
from ragbook.index import PassageIndex
from ragbook.methods.base import posterior
from ragbook.methods.realm import FORMS, masked_log_prob, retrieval_utility
from ragbook.models import Encoder
from ragbook.models.devices import device_of, least_precise, name_of
from ragbook.models.masked import NULL, MaskedReader
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.realm import cloze, masked_reader
from ragbook.training.realm.masking import Masked, sha256_of_masked
from ragbook.training.realm.refresh import Builder, Refresher

PROBE = 200
"""How many masked sentences' best passages are compared between an old index and a new one."""


@dataclass(frozen=True)
class RealmRecipe:
    """The settings of pre-training; the defaults are those of `ragbook train realm`.

    Parameters
    ----------
    k: passages for each sentence, not counting the null document: 7 as in the paper.
    batch: sentences in one update.
    steps: number of updates.
    form: `answer`, the paper's likelihood, or `token`, the released code's (`masked_log_prob`).
    refresh: updates between two indexes; 0 keeps the first.
    background: a second process builds the indexes while training goes on.
    retriever_rate, reader_rate, null_rate: peak learning rates; the last is for the null document's
        learned score. The first suits a projection; a whole tower needs a hundredth of it.
    frozen_layers: layers of the reader, from the bottom, that are not trained.
    """

    k: int = 7
    batch: int = 8
    steps: int = 500
    form: str = "answer"
    refresh: int = 25
    background: bool = False
    retriever_rate: float = 1e-2
    reader_rate: float = 3e-5
    null_rate: float = 2e-2
    frozen_layers: int = 4


@dataclass(frozen=True)
class Prediction:
    """The results of retriever and reader for B masked sentences, with gradients; column 0 of the
    n + 1 is the null document."""

    positions: np.ndarray  # int64 [B, n]: the passages that were found
    log_prior: Tensor  # float32 [B, n + 1], log p(z | x)
    token_log_probs: Tensor  # float32 [B, n + 1, T], log p(y_j | z, x)
    mask: Tensor  # bool [B, T]: the answers' own tokens

    def log_prob(self, form: str = "answer") -> Tensor:
        """log p(y | x), float32 [B]."""
        return masked_log_prob(self.token_log_probs, self.log_prior, self.mask, form)

    @property
    def answer_log_probs(self) -> Tensor:
        """log p(y | z, x), float32 [B, n + 1]."""
        return (self.token_log_probs * self.mask[:, None]).sum(-1)


def candidates(
    index: PassageIndex, queries: np.ndarray, shown: Sequence[Masked], k: int
) -> np.ndarray:
    """The k best passages for each sentence, without the one it comes from: positions int64
    [B, k'], best first, k' = min(k, passages - 1)."""
    _, found = index.search(queries, k + 1)
    rows = [
        [at for at in row if at != one.source][: min(k, len(index) - 1)]
        for row, one in zip(found.tolist(), shown, strict=True)
    ]
    return np.array(rows, dtype=np.int64)


def retrieve_then_predict(
    reader: MaskedReader,
    encoder: Encoder,
    index: PassageIndex,
    shown: Sequence[Masked],
    k: int,
    null_score: Tensor | float = 0.0,
) -> Prediction:
    """Retrieve for masked sentences, then predict what they hide.

    Parameters
    ----------
    index: is only searched; the scores are computed again with the encoder's current towers.
    null_score: a learned number, added to the score of the null document before the softmax.
    """
    prior, positions = masked_prior(encoder, index, shown, k, null_score)
    passages = [[NULL, *(index.corpus[at] for at in row)] for row in positions.tolist()]
    given, mask = reader.token_log_probs(
        [one.text for one in shown], [one.answer for one in shown], passages
    )
    return Prediction(positions, prior, given, mask)


def masked_prior(
    encoder: Encoder,
    index: PassageIndex,
    shown: Sequence[Masked],
    k: int,
    null_score: Tensor | float = 0.0,
) -> tuple[Tensor, np.ndarray]:
    """The prior of masked sentences over the passages found for them, the null document first.

    Returns
    -------
    (log p(z | x) float32 [B, n + 1], positions int64 [B, n]); see `retrieve_then_predict`.
    """
    texts = [one.text for one in shown]
    queries = encoder.query_vectors(texts)
    positions = candidates(index, queries.detach().float().cpu().numpy(), shown, k)
    distinct = sorted(set(positions.flatten().tolist()))
    vectors = encoder.passage_vectors([NULL, *(index.corpus[at] for at in distinct)])
    column = {at: number for number, at in enumerate(distinct, 1)}
    columns = torch.tensor([[0, *(column[at] for at in row)] for row in positions.tolist()])
    every = encoder.scores(queries, vectors)
    scores = encoder.score_scale * every.gather(1, columns.to(every.device)).float()
    null = torch.zeros_like(scores[:1])
    null[0, 0] = 1.0
    return (scores + null_score * null).log_softmax(-1), positions


def train_realm(
    reader: MaskedReader,
    encoder: Encoder,
    corpus: Corpus,
    masked: Sequence[Sequence[Masked]],
    work: Path,
    recipe: RealmRecipe = RealmRecipe(),
    seed: int = 0,
    evaluate: Callable[[PassageIndex], dict[str, float]] | None = None,
    progress: bool | None = None,
) -> PassageIndex:
    """Train `reader` and `encoder` in place, or resume; both are on one device, and their
    parameters may be bfloat16.

    A killed run goes on as if nothing had happened, unless its indexes are built in the background:
    the time when these are ready depends on the machine.

    Parameters
    ----------
    encoder: has one tower for sentences and passages, or two; all are trained.
    masked: for each sentence, the ways to mask it (see `masking`).
    work: folder of checkpoints, indexes and logs: `realm.log.jsonl` of the updates, and
        `refresh.jsonl` of the indexes.
    evaluate: gives further figures to log about each index.

    Returns
    -------
    The index of the trained encoder.

    Raises
    ------
    InputError: there are fewer than two passages, the recipe names no marginal, or `work` holds a
        run with other settings.
    """
    if recipe.form not in FORMS:
        raise InputError(f"there is no marginal {recipe.form!r}; choose from {', '.join(FORMS)}")
    if len(corpus) < 2:
        raise InputError("REALM never shows a sentence its own passage; give at least 2 passages.")
    cloze.freeze_bodies(encoder)
    masked_reader.freeze(reader, recipe.frozen_layers)
    probe = [ways[0] for ways in random.Random("probe").sample(masked, min(PROBE, len(masked)))]
    work.mkdir(parents=True, exist_ok=True)
    folder = work / "indexes"
    device = device_of(encoder.passage_model)
    precision = name_of(least_precise(encoder.passage_model.parameters()))
    background = Builder(folder, str(device), precision) if recipe.background else nullcontext()
    with background as builder:
        refresher = Refresher(
            folder,
            encoder,
            corpus,
            recipe.refresh,
            builder,
            ([one.text for one in probe], recipe.k),
            evaluate,
            work / "refresh.jsonl",
        )

        null_score = torch.nn.Parameter(torch.zeros((), device=device_of(reader.model)))
        if not (work / "realm.state.safetensors").exists():  # otherwise the checkpoint has it
            null_score.data += on_a_par(encoder, refresher.at(0), probe[:50], recipe.k)

        def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
            index = refresher.at(step)
            rng = random.Random(f"{seed}-realm-{step}")
            shown = [rng.choice(rng.choice(masked)) for _ in range(recipe.batch)]
            found = retrieve_then_predict(reader, encoder, index, shown, recipe.k, null_score)
            loss = -found.log_prob(recipe.form).mean()
            return loss, {"nll": loss.item(), **figures(found, shown)}

        upper = [p for p in reader.model.parameters() if p.requires_grad]
        groups = [
            (cloze.parameters(encoder), recipe.retriever_rate),
            ([*upper, *reader.head.parameters()], recipe.reader_rate),
            ([null_score], recipe.null_rate),
        ]
        optimizer = MasterAdamW(groups, weight_decay=0.0)
        train(
            "realm",
            batch_loss,
            optimizer,
            recipe.steps,
            work,
            warmup=max(1, recipe.steps // 10),
            save_every=recipe.refresh or 50,
            fingerprint=json.dumps([repr(recipe), seed, corpus.sha256, sha256_of_masked(masked)]),
            progress=progress,
        )
    return refresher.publish(recipe.steps)


@torch.no_grad()
def on_a_par(encoder: Encoder, index: PassageIndex, shown: Sequence[Masked], k: int) -> Tensor:
    """The mean difference between the best passage's score and the null document's: a scalar.

    An embedder that was trained on texts only puts the empty one far from every sentence. Without
    adding this difference to its score, its prior would be almost 0, and so would be the gradient
    that could raise it.
    """
    prior, _ = masked_prior(encoder, index, shown, k)
    return (prior[:, 1] - prior[:, 0]).mean()


@torch.no_grad()
def figures(found: Prediction, shown: Sequence[Masked]) -> dict[str, float]:
    """The figures logged at a step, averaged over its sentences: the retrieval utility of the best
    passage found, nats; the null document's prior and posterior; how often a passage that holds the
    answer was found, and the posterior of such passages."""
    given = found.answer_log_probs
    utility = retrieval_utility(given, given[:, 0])[:, 1]
    after = posterior(found.log_prior, given)
    holds = torch.tensor(
        [[at in one.holders for at in row] for row, one in zip(found.positions, shown, strict=True)]
    )
    out = {
        "utility": utility.mean().item(),
        "null_prior": found.log_prior[:, 0].exp().mean().item(),
        "null_posterior": after[:, 0].mean().item(),
        "holder_found": holds.any(1).float().mean().item(),
        "holder_posterior": (after[:, 1:] * holds.to(after.device)).sum(1).mean().item(),
    }
    return out
