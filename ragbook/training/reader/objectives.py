r"""Each method's own objective, trained as its paper trains it, from one start.

All methods begin with the same shared reader and see the same questions in the same order, the same
number of passages and as many steps. Each maximises the likelihood that it uses to answer:

* RAG-Sequence and RAG-Token the marginal \(\log p(y \mid x)\), generator and question tower
  together (Lewis et al. 2020, section 2.4);
* FiD \(\log p(y \mid x, z_1, \dots, z_n)\) over the fused passages (Izacard & Grave 2021);
* REALM the marginal over passages and spans, reader and question tower together (Guu et al. 2020,
  section 3.3).

The marginal does not train the spans of passages that do not hold the answer: these give it no
probability and get no gradient, so that one of their wrong spans may win in the end. REALM's
objective therefore also asks the reader, as in the shared reader's training, to put the probability
of such a passage on "the answer is not here".

The decoder, or REALM's span scorer, is trained whole, except its word embeddings and the output
layer's bias, which could learn answers by heart. The encoder and the question tower get low-rank
adapters (Hu et al. 2022). Passage vectors do not change. What is kept of a method is a file of
changes (`ragbook.models.changes`); in every third example the answer is exchanged, in the passages
and in the target, for another of its form, so that it has to be read.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.corpus import Passage, Question
from ragbook.methods import rag, realm
from ragbook.models import Encoder
from ragbook.models.changes import changes, factors
from ragbook.models.devices import device_of
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.pairs import states_at
from ragbook.models.span import SpanScorer
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.train import (
    ReaderBatch,
    collate,
    quicken,
    set_dropout,
    shift_right,
)
from ragbook.training.reader.worlds import Example
from ragbook.training.run import Run

METHODS = ("realm", "rag-sequence", "rag-token", "fid")
SEARCHING = ("realm", "rag-sequence", "rag-token")
"""The methods whose question tower is trained with the reader."""
IMPOSSIBLE = -1e3
"""log p given to a span that is not the answer: finite, so that its gradient is 0 and not NaN."""


@dataclass(frozen=True)
class Recipe:
    """The settings, the same for every method.

    Parameters
    ----------
    steps, batch, n: updates, questions in one, and passages of a question.
    decoder_rate: peak learning rate of the decoder or span scorer.
    adapter_rate, query_rate: those of the encoder's and the question tower's adapters.
    layers: the encoders' layers, from the top, that have adapters.
    rank: of the adapters.
    kept: rank of the decoder's change as it is stored.
    """

    steps: int = 100
    batch: int = 8
    n: int = 5
    decoder_rate: float = 1e-4
    adapter_rate: float = 3e-4
    query_rate: float = 5e-5
    layers: int = 2
    rank: int = 8
    kept: int = 16


def answer_spans(batch: ReaderBatch, max_span: int) -> Tensor:
    """Which spans of each passage are the answer: bool [B * n, L, max_span], like the scores."""
    ids = batch.inputs["input_ids"]
    out = torch.zeros(*ids.shape, max_span, dtype=torch.bool)
    for row, own in enumerate((ids * batch.passage_mask).tolist()):
        labels = batch.labels[row // batch.n]
        answer = labels[labels != -100][:-1].tolist()  # without its end token
        if 0 < len(answer) <= max_span:
            for start in range(len(own) - len(answer) + 1):
                if own[start : start + len(answer)] == answer:
                    out[row, start, len(answer) - 1] = True
    return out


def log_likelihood(
    method: str, model: Any, scorer: SpanScorer, batch: ReaderBatch, log_prior: Tensor
) -> tuple[Tensor, Tensor]:
    """The log-likelihoods of the answers, and of "not here" in REALM, with gradients.

    Parameters
    ----------
    batch: B questions with n passages each.
    log_prior: float32 [B, n], log p(z | x), which FiD ignores.

    Returns
    -------
    (log p(y | x) float32 [B], log p(not here | x, z) float32 [B, n]), nats, on the model's device;
    the latter is 0 where the passage holds the answer, and in the methods that generate.
    """
    read, device = batch, device_of(model)
    batch, log_prior = batch.to(device), log_prior.to(device)
    mask = batch.inputs["attention_mask"]
    states, _ = states_at(model.encoder, batch.inputs, chunk=16)
    states = states.to(model.encoder.dtype)
    rows, length, width = states.shape
    n, B = batch.n, rows // batch.n
    if method == "realm":
        spans = scorer(states, batch.passage_mask).flatten(1).log_softmax(-1)
        reads = answer_spans(read, scorer.max_span).flatten(1).to(device)
        given = spans.masked_fill(~reads, IMPOSSIBLE).logsumexp(-1).reshape(B, n)
        not_here = spans[:, 0] * ~reads.any(-1)  # the span of [CLS]
        return realm.marginal_log_prob(given, log_prior), not_here.reshape(B, n)
    labels = batch.labels
    if method == "fid":
        states, mask = states.reshape(B, n * length, width), mask.reshape(B, n * length)
    else:
        labels = labels.repeat_interleave(n, 0)
    out = model.decoder(
        input_ids=shift_right(labels, model.config.decoder_start_token_id, 0),
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        use_cache=False,
    )
    log_probs = out.logits.float().log_softmax(-1)
    token_log_probs = log_probs.gather(-1, labels.clamp_min(0)[:, :, None]).squeeze(-1)
    own = batch.labels != -100
    if method == "fid":
        return (token_log_probs * own).sum(-1), torch.zeros(B, n, device=device)
    marginal = rag.sequence_log_prob if method == "rag-sequence" else rag.token_log_prob
    found = marginal(token_log_probs.reshape(B, n, -1), log_prior, own)
    return found, torch.zeros(B, n, device=device)


class Trainee:
    """Copies of the shared reader and of the encoder's question tower, of which one method trains
    its part.

    Parameters
    ----------
    method: one of `METHODS`.
    model, scorer: the shared reader; they are not changed.
    encoder: the retriever's; its towers are not changed.
    recipe: the settings.
    run: the seed, of the adapters' first values, and where and how precisely it computes.
    """

    def __init__(
        self,
        method: str,
        model: Any,
        scorer: SpanScorer,
        encoder: Encoder,
        recipe: Recipe,
        run: Run,
    ) -> None:
        torch.manual_seed(run.seed)
        self.method, self.recipe = method, recipe
        self.model, self.scorer, self.encoder = deepcopy(model), deepcopy(scorer), encoder.untied()
        for one in (self.model, self.scorer, self.encoder.query_model):
            quicken(one, run.device, run.precision)
            one.requires_grad_(False).eval()
        set_dropout(self.model, 0.0)
        adapters = _add_adapters(self.model.encoder, recipe)
        whole = list(self._whole().values())
        for parameter in whole:
            parameter.requires_grad = True
        self.groups = [(whole, recipe.decoder_rate), (adapters, recipe.adapter_rate)]
        if method in SEARCHING:
            own = _add_adapters(self.encoder.query_model, recipe)
            self.groups.append((own, recipe.query_rate))

    def _whole(self) -> dict[str, nn.Parameter]:
        """What is trained without an adapter, by name: the scorer, or the decoder without the word
        embeddings that it shares and the bias over the vocabulary."""
        if self.method == "realm":
            return {f"scorer.{name}": p for name, p in self.scorer.named_parameters()}
        words = self.model.config.decoder.vocab_size
        return {
            f"decoder.{name}": p
            for name, p in self.model.decoder.named_parameters()
            if words not in p.shape
        }

    def log_prior(self, questions: Sequence[Question], keys: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z | x) over the n best of all passages' vectors, `keys` [N, d], float32 [B, n],
        with gradients to the question tower; and their positions, int64 [B, n]."""
        with torch.set_grad_enabled(self.method in SEARCHING):
            queries = self.encoder.query_vectors([q.text for q in questions])
            scores, positions = (queries @ keys.T.to(queries.device)).topk(self.recipe.n)
        return (self.encoder.score_scale * scores).log_softmax(-1), positions

    @torch.no_grad()
    def take(self, optimizer: MasterAdamW) -> None:
        """Take over the optimiser's float32 masters: they know what bfloat16 rounds away."""
        for one in (self.model, self.scorer, self.encoder.query_model):
            one.float()
        for parameter, master in zip(optimizer.parameters, optimizer.masters, strict=True):
            parameter.copy_(master)

    def changes(self, before: dict[str, Tensor]) -> dict[str, Tensor]:
        """What training changed since `before`, the values of `whole`, in the form of a file."""
        out = changes(before, self.whole(), self.recipe.kept)
        out |= _adapter_changes("encoder", self.model.encoder)
        return out | _adapter_changes("query", self.encoder.query_model)

    def whole(self) -> dict[str, Tensor]:
        """Copies of the tensors that are trained without an adapter, by name."""
        return {name: p.detach().clone() for name, p in self._whole().items()}


def _add_adapters(tower: Any, recipe: Recipe) -> list[nn.Parameter]:
    """Add low-rank adapters to all linear layers of a BERT's upper layers, in place; they change
    nothing before they are trained."""
    from peft import LoraConfig, inject_adapter_in_model

    first = tower.config.num_hidden_layers - recipe.layers
    layers = "|".join(str(at) for at in range(first, tower.config.num_hidden_layers))
    linear = rf"encoder\.layer\.({layers})\..*\.(query|key|value|dense)"
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=linear)
    inject_adapter_in_model(config, tower)
    return [p for name, p in tower.named_parameters() if "lora_" in name]


def _adapter_changes(prefix: str, tower: nn.Module) -> dict[str, Tensor]:
    """The factors of a tower's adapters, by the names that its tensors have without them."""
    out: dict[str, Tensor] = {}
    module: Any  # a layer of peft
    for name, module in tower.named_modules():
        if hasattr(module, "lora_A"):
            left, right = module.lora_B["default"].weight, module.lora_A["default"].weight
            scaled = left * module.scaling["default"]
            out |= factors(f"{prefix}.{name}.weight", scaled, right)
    return out


def exchanged(
    rng: random.Random, source: GoldExamples, question: Question, passages: Sequence[Passage]
) -> tuple[Question, list[Passage]]:
    """The question and its passages, in one of three cases with another answer in the place of the
    one that the passages hold; see `GoldExamples.other_answer`."""
    old = question.answers[0]
    new = source.other_answer(rng, question) if rng.random() < 0.33 else old
    if new == old:
        return question, list(passages)
    word = re.compile(rf"(?<!\w){re.escape(old)}(?!\w)")
    said = [replace(p, text=word.sub(lambda _: new, p.text)) for p in passages]
    return replace(question, answers=(new,)), said


def train_method(
    method: str,
    model: Any,
    scorer: SpanScorer,
    encoder: Encoder,
    source: GoldExamples,
    run: Run,
    recipe: Recipe | None = None,
) -> dict[str, Tensor]:
    """Train one method, or resume its training; returns its changes, as its file holds them.

    Parameters
    ----------
    method: one of `METHODS`.
    model, scorer, encoder: the shared reader and the retriever's encoder, which are not changed.
    source: questions and passages. Shown are those whose answer is in one of the n best passages.
    recipe: the settings; None for the defaults.
    """
    recipe = recipe or Recipe()
    trainee = Trainee(method, model, scorer, encoder, recipe, run)
    before, found = trainee.whole(), source.found(recipe.n)
    tokenizer, length = minilm_tokenizer(), run.cut(recipe.steps)

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = random.Random(f"{run.seed}-{step}")
        asked = [one.question for one in rng.choices(found, k=recipe.batch)]
        log_prior, positions = trainee.log_prior(asked, source.keys)
        examples = []
        for question, places in zip(asked, positions.tolist(), strict=True):
            passages = [source.corpus[at] for at in places]
            question, passages = exchanged(rng, source, question, passages)
            examples.append(Example(question, tuple(passages), 0))
        batch = collate(tokenizer, examples, scorer.max_span)
        likelihood, not_here = log_likelihood(
            method, trainee.model, trainee.scorer, batch, log_prior
        )
        nll = -likelihood.clamp_min(IMPOSSIBLE / 2).mean()  # no gradient if no span is right
        silence = -not_here.sum(-1).mean()
        return nll + silence, {"nll": nll.item(), "silence": silence.item()}

    optimizer = MasterAdamW(trainee.groups, weight_decay=0.0)
    train(
        method,
        batch_loss,
        optimizer,
        length,
        run.work,
        warmup=max(1, length // 8),
        fingerprint=json.dumps([method, repr(recipe), length, run.seed, source.sha256]),
    )
    trainee.take(optimizer)
    return trainee.changes(before)
