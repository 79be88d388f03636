r"""Each method trained by its own objective, from one start.

All methods begin with the same shared reader and see the same questions in the same order, the same
number of passages and as many steps. Each maximises the likelihood that it uses to answer:

* RAG-Sequence and RAG-Token the marginal \(\log p(y \mid x)\), generator and question tower
  together (Lewis et al. 2020, section 2.4);
* FiD \(\log p(y \mid x, z_1, \dots, z_n)\) over the fused passages (Izacard & Grave 2021);
* REALM the marginal over passages and spans, reader and question tower together (Guu et al. 2020,
  section 3.3).

Where an answer is written, its likelihood is that under the rule that the search keeps
(`Verbatim`): among the tokens that may come next in the passages, as
`ragbook.methods.decoding.share` divides it up. A free likelihood asks for the answer among all
words of the vocabulary; whether it ends here or goes on is then a small part of what is learnt, and
it is what the rule leaves to be decided.

To this come two lessons of the shared reader's own training, so that they are not forgotten:

* where passages are read one by one, a passage that does not hold the answer should give its
  probability to "the answer is not here". The marginal does not train such a passage: it has no
  part in the answer and gets no gradient, so that one of its wrong answers may win in the end;
* where an answer is written, the decoder's last cross-attention should be on the places that hold
  the token to be written.

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
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ragbook.corpus import Passage, Question
from ragbook.methods import rag, realm
from ragbook.methods.decoding import Verbatim
from ragbook.models import Encoder
from ragbook.models.answers import detokenize, word_runs
from ragbook.models.changes import changes, factors
from ragbook.models.devices import device_of
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.pairs import states_at
from ragbook.models.span import SpanScorer
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.reader.examples import GoldExamples, RetrievedQuestion
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
    silence, pointer: weights of the losses of the two lessons; see the module.
    held: whether a written answer's likelihood is that under the rule that the search keeps, or
        among all words.
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
    silence: float = 1.0
    pointer: float = 0.5
    held: bool = True


def answer_starts(batch: ReaderBatch) -> Tensor:
    """Where the tokens of each passage begin to be the answer: bool [B * n, L]."""
    ids = batch.inputs["input_ids"]
    out = torch.zeros(*ids.shape, dtype=torch.bool)
    for row, own in enumerate((ids * batch.passage_mask).tolist()):
        labels = batch.labels[row // batch.n]
        answer = labels[labels != -100][:-1].tolist()  # without its end token
        for start in range(len(own) - len(answer) + 1 if answer else 0):
            out[row, start] = own[start : start + len(answer)] == answer
    return out


def answer_spans(batch: ReaderBatch, max_span: int) -> Tensor:
    """Which spans of each passage are the answer: bool [B * n, L, max_span], like the scores."""
    starts = answer_starts(batch)
    out = torch.zeros(*starts.shape, max_span, dtype=torch.bool)
    for row, length in enumerate(answer_lengths(batch).repeat_interleave(batch.n).tolist()):
        if length <= max_span:
            out[row, :, length - 1] = starts[row]
    return out


def answer_lengths(batch: ReaderBatch) -> Tensor:
    """The number of tokens of each answer, its end token left out: int64 [B]."""
    return (batch.labels != -100).sum(-1) - 1


def answer_places(batch: ReaderBatch) -> Tensor:
    """Where each passage holds the answer's tokens: bool [B * n, T, L], for each of its T tokens
    the positions of those that are this token of an answer."""
    starts, lengths = answer_starts(batch), answer_lengths(batch).repeat_interleave(batch.n)
    out = torch.zeros(len(starts), batch.labels.shape[1], starts.shape[1], dtype=torch.bool)
    for t in range(out.shape[1]):
        out[:, t, t:] = starts[:, : starts.shape[1] - t] & (t < lengths)[:, None]
    return out


def may_follow(examples: Sequence[Example], labels: Tensor, method: str, vocab_size: int) -> Tensor:
    """Which tokens the search would let follow each beginning of the answers: bool [R, T, V], a row
    for each question in FiD and for each passage of a question elsewhere. Nothing follows where the
    passages do not hold the beginning; at the very beginning the answer may also end.

    Parameters
    ----------
    labels: int64 [B, T], the answers' tokens and the end token, padded with -100.
    """
    tokenizer = minilm_tokenizer()
    runs, decode = partial(word_runs, tokenizer), partial(detokenize, tokenizer)
    end: int = tokenizer.sep_token_id
    rows = [
        (passages, answer[answer != -100].tolist())
        for example, answer in zip(examples, labels, strict=True)
        for passages in ([example.passages] if method == "fid" else [[p] for p in example.passages])
    ]
    out = torch.zeros(len(rows), labels.shape[1], vocab_size, dtype=torch.bool)
    for row, (passages, answer) in enumerate(rows):
        rule = Verbatim(runs, passages, end, decode)
        for t in range(len(answer)):
            out[row, t, rule(answer[:t])] = True
    out[:, 0, end] = True
    return out


class Objective(NamedTuple):
    """The parts of an objective, with gradients, on the model's device.

    Attributes
    ----------
    answer: log p(y | x) of the answers, nats, float32 [B].
    not_here: log p("the answer is not here" | x, z), nats, float32 [B, n]; 0 where the passage
        holds the answer, and in FiD.
    copied: log of the cross-attention, in the decoder's last layer, to the places that hold the
        token to be written, float32 [places]; empty in REALM.
    """

    answer: Tensor
    not_here: Tensor
    copied: Tensor


def objective(
    method: str,
    model: Any,
    scorer: SpanScorer,
    batch: ReaderBatch,
    log_prior: Tensor,
    rule: Tensor | None = None,
) -> Objective:
    """A method's objective for a batch of B questions with n passages each.

    Parameters
    ----------
    log_prior: float32 [B, n], log p(z | x), which FiD ignores.
    rule: which tokens may follow; see `may_follow`. None lets the answers be written freely. REALM
        ignores it, for its spans cannot break it. An answer that FiD's passages do not hold is
        written freely, and under RAG a passage that does not hold it gives it `IMPOSSIBLE`.
    """
    places, spans_right = answer_places(batch), answer_spans(batch, scorer.max_span)
    device = device_of(model)
    batch, log_prior = batch.to(device), log_prior.to(device)
    places, spans_right = places.to(device), spans_right.flatten(1).to(device)
    mask = batch.inputs["attention_mask"]
    states = states_at(model.encoder, batch.inputs, chunk=16)
    states = states.to(model.encoder.dtype)
    rows, length, width = states.shape
    n, B = batch.n, rows // batch.n
    if method == "realm":
        spans = scorer(states, batch.passage_mask).flatten(1).log_softmax(-1)
        given = spans.masked_fill(~spans_right, IMPOSSIBLE).logsumexp(-1).reshape(B, n)
        not_here = spans[:, 0] * ~spans_right.any(-1)  # the span of [CLS]
        answer = realm.marginal_log_prob(given, log_prior)
        return Objective(answer, not_here.reshape(B, n), spans.new_zeros(0))
    labels = batch.labels
    if method == "fid":
        states, mask = states.reshape(B, n * length, width), mask.reshape(B, n * length)
        places = places.reshape(B, n, -1, length).transpose(1, 2).flatten(2)
    else:
        labels = labels.repeat_interleave(n, 0)
    out = model.decoder(
        input_ids=shift_right(labels, model.config.decoder_start_token_id, 0),
        encoder_hidden_states=states,
        encoder_attention_mask=mask,
        output_attentions=True,
        use_cache=False,
    )
    attention = out.cross_attentions[-1].float().mean(1)  # [B or B * n, T, n * L or L]
    copied = ((attention * places).sum(-1)[places.any(-1)] + 1e-6).log()
    logits, own = out.logits.float(), batch.labels != -100
    allowed = torch.ones_like(logits, dtype=torch.bool) if rule is None else rule.to(device)
    if method == "fid":
        holds = (_at(allowed, labels) | ~own).all(-1)  # else the answer is written freely
        log_probs = _shared_out(logits, allowed | ~holds[:, None, None])
        answer = _at(log_probs, labels).where(own, 0.0).sum(-1)
        return Objective(answer, states.new_zeros(B, n), copied)
    log_probs = _shared_out(logits, allowed)
    given = _at(log_probs, labels).where(_at(allowed, labels), IMPOSSIBLE).reshape(B, n, -1)
    if method == "rag-sequence":
        answer = rag.sequence_log_prob(given, log_prior, own)
    else:
        # Of each token's mixture, the passages that hold the answer up to there have all.
        has_a_say = allowed.any(-1).reshape(B, n, -1)
        holders = log_prior[:, :, None].masked_fill(~has_a_say, IMPOSSIBLE).logsumexp(1)
        answer = rag.token_log_prob(given, log_prior, own) - (holders * own).sum(-1)
    not_here = log_probs[:, 0, model.config.eos_token_id] * ~places.flatten(1).any(-1)
    return Objective(answer, not_here.reshape(B, n), copied)


def _at(values: Tensor, labels: Tensor) -> Tensor:
    """The values [R, T, V] of the labels [R, T]; on padding those of token 0."""
    return values.gather(-1, labels.clamp_min(0)[:, :, None]).squeeze(-1)


def _shared_out(logits: Tensor, allowed: Tensor) -> Tensor:
    """log p [R, T, V] in which the probabilities of the allowed tokens sum to 1, as
    `ragbook.methods.decoding.share` does it; all tokens' where none is allowed."""
    allowed = allowed | ~allowed.any(-1, keepdim=True)
    return logits.masked_fill(~allowed, float("-inf")).log_softmax(-1)


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
            scores, positions = nearest(self.encoder, questions, keys, self.recipe.n)
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


def nearest(
    encoder: Encoder, questions: Sequence[Question], keys: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """The scores of the n best of all passages' vectors, `keys` [N, d], for each question, float32
    [B, n]; and their positions, int64 [B, n]."""
    queries = encoder.query_vectors([question.text for question in questions])
    scores, positions = (queries @ keys.T.to(queries.device)).topk(n)
    return scores, positions


def asked_at(
    step: int, seed: int, asking: Sequence[RetrievedQuestion], count: int
) -> tuple[random.Random, list[Question]]:
    """The questions of a step, the same for every method, and the step's further random numbers."""
    rng = random.Random(f"{seed}-{step}")
    return rng, [one.question for one in rng.choices(asking, k=count)]


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


def shown(
    rng: random.Random, source: GoldExamples, asked: Sequence[Question], positions: Tensor
) -> list[Example]:
    """The examples of one step: each question with the passages at its row of `positions`, int64
    [B, n], some of them with another answer; see `exchanged`."""
    examples = []
    for question, places in zip(asked, positions.tolist(), strict=True):
        passages = [source.corpus[at] for at in places]
        question, passages = exchanged(rng, source, question, passages)
        examples.append(Example(question, tuple(passages), 0))
    return examples


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
    before, asking = trainee.whole(), source.found(recipe.n)
    tokenizer, length = minilm_tokenizer(), run.cut(recipe.steps)

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, asked = asked_at(step, run.seed, asking, recipe.batch)
        log_prior, positions = trainee.log_prior(asked, source.keys)
        examples = shown(rng, source, asked, positions)
        batch = collate(tokenizer, examples, scorer.max_span)
        rule = None
        if recipe.held and method != "realm":
            words = trainee.model.config.decoder.vocab_size
            rule = may_follow(examples, batch.labels, method, words)
        found = objective(method, trainee.model, trainee.scorer, batch, log_prior, rule)
        nll = -found.answer.clamp_min(IMPOSSIBLE / 2).mean()  # no gradient if no span is right
        silence = -found.not_here.sum(-1).mean()
        pointer = -found.copied.mean() if len(found.copied) else nll.new_zeros(())
        loss = nll + recipe.silence * silence + recipe.pointer * pointer
        return loss, {"nll": nll.item(), "silence": silence.item(), "pointer": pointer.item()}

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
