r"""Each method's own objective: a small change of the shared reader, trained on retrieved passages.

The shared reader was trained with passages that were chosen for it. Afterwards each method is
trained on the passages that the retriever finds, and maximises the likelihood that it uses to
answer:

* RAG-Sequence and RAG-Token the marginal \(\log p(y \mid x)\) (Lewis et al. 2020, section 2.4);
* FiD \(\log p(y \mid x, z_1, \dots, z_n)\) over the fused passages;
* REALM the marginal over passages and spans (Guu et al. 2020, section 3.3).

The marginal does not train the spans of passages that do not hold the answer: these give it no
probability and get no gradient, so that one of their wrong spans may win in the end. REALM's
objective therefore also asks the reader, as in the shared reader's training, to put the probability
of such a passage on "the answer is not here".

The encoder does not change, so all methods still share its states. In the decoder only biases and
layer norms are trained (BitFit, Ben Zaken et al. 2022), except the output layer's bias, which could
learn answers by heart; in the span reader only the scorer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.methods import rag, realm
from ragbook.models.devices import device_of
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.span import SpanScorer
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.reader.examples import RetrievedQuestion
from ragbook.training.reader.train import ReaderBatch, collate, set_dropout, shift_right
from ragbook.training.reader.worlds import Example
from ragbook.training.run import Run

METHODS = ("realm", "rag-sequence", "rag-token", "fid")
STEPS, BATCH, N_DOCS, RATE = 150, 16, 5, 2e-4
IMPOSSIBLE = -1e3
"""log p given to a span that is not the answer: finite, so that its gradient is 0 and not NaN."""


def own_tensors(method: str, model: Any, scorer: SpanScorer) -> dict[str, nn.Parameter]:
    """The parameters that `method` trains, by name: those of the scorer, or the decoder's biases
    and layer norms."""
    if method == "realm":
        return dict(scorer.named_parameters())
    return {
        name: parameter
        for name, parameter in model.decoder.named_parameters()
        if parameter.dim() == 1 and parameter.numel() < model.config.decoder.vocab_size
    }


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
    log_prior: float32 [B, n], log p(z | x).

    Returns
    -------
    (log p(y | x) float32 [B], log p(not here | x, z) float32 [B, n]), nats, on the model's device;
    the latter is 0 where the passage holds the answer, and in the methods that generate.
    """
    read, device = batch, device_of(model)
    batch, log_prior = batch.to(device), log_prior.to(device)
    with torch.no_grad():
        states = model.encoder(**batch.inputs).last_hidden_state
    rows, length, width = states.shape
    n, B = batch.n, rows // batch.n
    if method == "realm":
        spans = scorer(states, batch.passage_mask).flatten(1).log_softmax(-1)
        reads = answer_spans(read, scorer.max_span).flatten(1).to(device)
        given = spans.masked_fill(~reads, IMPOSSIBLE).logsumexp(-1).reshape(B, n)
        not_here = spans[:, 0] * ~reads.any(-1)  # the span of [CLS]
        return realm.marginal_log_prob(given, log_prior), not_here.reshape(B, n)
    labels, mask = batch.labels, batch.inputs["attention_mask"]
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


def train_objectives(
    model: Any, scorer: SpanScorer, found: Sequence[RetrievedQuestion], source: str, run: Run
) -> dict[str, dict[str, Tensor]]:
    """Train each method's own tensors, each starting from the shared reader, or resume this
    training; returns file -> tensors.

    Parameters
    ----------
    model, scorer: the shared reader, as `train_reader` left it; its values are restored at the end.
    found: questions with the passages that were retrieved for them.
    source: hash of the data that `found` comes from.
    """
    tokenizer = minilm_tokenizer()

    def draw(step: int) -> tuple[ReaderBatch, Tensor]:
        shown = random.Random(f"{run.seed}-{step}").choices(found, k=BATCH)
        examples = [Example(f.question, f.passages, f.holder) for f in shown]
        scores = torch.tensor([f.scores for f in shown])
        return collate(tokenizer, examples, scorer.max_span), scores.log_softmax(-1)

    set_dropout(model, 0.0)
    files: dict[str, dict[str, Tensor]] = {}
    for method in METHODS:
        for parameter in [*model.parameters(), *scorer.parameters()]:
            parameter.requires_grad = False
        own = own_tensors(method, model, scorer)
        shared = {name: parameter.detach().clone() for name, parameter in own.items()}
        for parameter in own.values():
            parameter.requires_grad = True

        def batch_loss(step: int, method: str = method) -> tuple[Tensor, dict[str, float]]:
            likelihood, not_here = log_likelihood(method, model, scorer, *draw(step))
            nll = -likelihood.clamp_min(IMPOSSIBLE / 2).mean()  # no gradient if no span is right
            silence = -not_here.sum(-1).mean()
            return nll + silence, {"nll": nll.item(), "silence": silence.item()}

        length = run.cut(STEPS)
        train(
            method,
            batch_loss,
            MasterAdamW([(list(own.values()), RATE)], weight_decay=0.0),
            length,
            run.work,
            warmup=20,
            fingerprint=json.dumps([method, length, RATE, run.seed, source]),
        )
        files[method] = {n: p.detach().bfloat16().clone() for n, p in own.items()}
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(shared[name])
    return files
