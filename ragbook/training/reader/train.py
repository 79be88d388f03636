"""Trains the bundled readers: RAG's and FiD's seq2seq reader and REALM's span reader, together.

Both share one encoder, the embedded one with its upper layers fine-tuned, so that the methods
differ only in how they use the evidence. A step shows questions with n passages each; its loss adds

* the answer's cross-entropy, with the passages fused as in FiD (n = 1 is the plain reader);
* a pointer loss: the mean cross-attention of the decoder's last layer should be on the token of
  the passage that is being written. With it the reader learns to copy within a few hundred steps;
  from the answers alone it takes many thousand;
* the span loss of REALM's reader on each passage by itself; [CLS] stands for "not here".

If the passages do not hold the answer, the target is the empty answer. So the reader's p(y | x, z)
is low where z does not answer the question, which the sums over passages in RAG and REALM need.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ragbook.models.answers import find
from ragbook.models.devices import device_of, place
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.prompts import pair
from ragbook.models.span import SpanScorer
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.reader.curriculum import Stage
from ragbook.training.reader.worlds import Example
from ragbook.training.run import Run

FROZEN_LAYERS = 2
"""Layers of the embedded encoder, from the bottom, that are not trained; its embeddings are not
either."""

TRAIN_INPUT, MAX_ANSWER = 176, 16
"""Longest input and longest answer in training, in tokens; few are longer and get cut."""


@dataclass
class ReaderBatch:
    """One step's tensors: B questions, n passages each, L input tokens, T answer tokens."""

    inputs: dict[str, Tensor]  # int64 [B * n, L] each
    passage_mask: Tensor  # bool [B * n, L]: the passage's own tokens
    labels: Tensor  # int64 [B, T]: answer tokens and [SEP], padded with -100
    pointer: Tensor  # bool [B, T, n * L]: the positions in the passages of the token to be written
    spans: Tensor  # int64 [B * n]: start * max_span + width - 1 of the answer's span, 0 for none
    n: int

    def to(self, device: torch.device) -> ReaderBatch:
        """The same batch with its tensors on a device."""
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return replace(
            self,
            inputs=inputs,
            passage_mask=self.passage_mask.to(device),
            labels=self.labels.to(device),
            pointer=self.pointer.to(device),
            spans=self.spans.to(device),
        )


def collate(tokenizer: Any, examples: Sequence[Example], max_span: int) -> ReaderBatch:
    """The tensors of examples that have the same number of passages; 0 passages is closed book."""
    n = max(1, len(examples[0].passages))
    rows = [(e.question.text, p) for e in examples for p in (e.passages or (None,))]
    read = pair(tokenizer, [q for q, _ in rows], [p for _, p in rows], max_input=TRAIN_INPUT)
    answers = tokenizer(
        [e.question.answers[0] for e in examples],
        add_special_tokens=False,
        truncation=True,
        max_length=MAX_ANSWER - 1,
    )["input_ids"]
    length = read.mask.shape[1]
    labels = torch.full((len(examples), max(len(a) for a in answers) + 1), -100)
    pointer = torch.zeros(*labels.shape, n * length, dtype=torch.bool)
    spans = torch.zeros(len(rows), dtype=torch.long)
    for number, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        if example.passages and example.gold is None:
            labels[number, 0] = tokenizer.sep_token_id
            continue
        labels[number, : len(answer) + 1] = torch.tensor([*answer, tokenizer.sep_token_id])
        if example.gold is None:
            continue
        row = number * n + example.gold
        own = read.tensors["input_ids"][row] * read.passage_mask[row]  # 0 outside the passage
        position = find(own.tolist(), answer)
        if position >= 0:
            for t in range(len(answer)):
                pointer[number, t, example.gold * length + position + t] = True
            if len(answer) <= max_span:
                spans[row] = position * max_span + len(answer) - 1
    return ReaderBatch(read.tensors, read.passage_mask, labels, pointer, spans, n)


def shift_right(labels: Tensor, start: int, pad: int) -> Tensor:
    """Decoder input of teacher forcing: the start token, then the labels without their last."""
    inputs = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
    return inputs.masked_fill(inputs == -100, pad)


def losses(model: Any, scorer: SpanScorer, batch: ReaderBatch) -> tuple[Tensor, dict[str, float]]:
    """The step's loss, answer + pointer / 2 + span / 2 (see the module), and its parts."""
    batch = batch.to(device_of(model))
    states = model.encoder(**batch.inputs).last_hidden_state
    rows, length, width = states.shape
    B = rows // batch.n
    out = model.decoder(
        input_ids=shift_right(batch.labels, model.config.decoder_start_token_id, 0),
        encoder_hidden_states=states.reshape(B, batch.n * length, width),
        encoder_attention_mask=batch.inputs["attention_mask"].reshape(B, batch.n * length),
        output_attentions=True,
        use_cache=False,
    )
    logits = out.logits.float()
    loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
    right = (logits.argmax(-1) == batch.labels) | (batch.labels == -100)
    # Greedy decoding gives the gold answer if each of its tokens is the likeliest at its position.
    figures = {"answer": loss.item(), "greedy_em": float(right.all(-1).float().mean())}
    pointed = batch.pointer.any(-1)
    if pointed.any():
        attention = out.cross_attentions[-1].float().mean(1)  # [B, T, n * L]
        pointer = -((attention * batch.pointer).sum(-1)[pointed] + 1e-6).log().mean()
        loss = loss + 0.5 * pointer
        figures["pointer"] = pointer.item()
    if batch.passage_mask.any():
        scores = scorer(states, batch.passage_mask).flatten(1)
        span = functional.cross_entropy(scores, batch.spans)
        loss = loss + 0.5 * span
        figures["span"] = span.item()
    return loss, figures


def quicken(model: Any, device: str = "cpu", precision: str = "auto") -> None:
    """Move a model to where it is trained, put it into that precision, and choose the attention
    that trains faster."""
    for module in model.modules():  # the encoder's layers have a configuration of their own
        if hasattr(module, "config"):
            # Its backward pass takes a third of the fused kernel's time on CPUs at these lengths,
            # and it returns the attention weights that the pointer loss needs.
            module.config._attn_implementation = "eager"
    place(model, device, precision)


def quicken_and_freeze(
    model: Any, scorer: SpanScorer, device: str = "cpu", precision: str = "auto"
) -> None:
    """Prepare the reader and its scorer for training there, and freeze the embeddings and the
    encoder's lower layers."""
    quicken(model, device, precision)
    place(scorer, device, precision)
    for name, parameter in model.encoder.named_parameters():
        layer = re.match(r"encoder\.layer\.(\d+)\.", name)
        parameter.requires_grad = layer is not None and int(layer[1]) >= FROZEN_LAYERS
    model.decoder.bert.embeddings.word_embeddings.weight.requires_grad = False


def set_dropout(model: Any, p: float) -> None:
    """Switch to training mode, with dropout on the outputs of the trained layers only."""
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout):
            trained = any(q.requires_grad for q in model.get_submodule(name[:-8]).parameters())
            module.p = p if name.endswith("output.dropout") and trained else 0.0


def train_reader(
    model: Any, scorer: SpanScorer, stages: Sequence[Stage], run: Run
) -> dict[str, dict[str, Tensor]]:
    """Train encoder, decoder and span scorer, or resume their training; returns their trained
    tensors by file, bfloat16 whatever they were trained in.

    Parameters
    ----------
    model, scorer: where training starts; changed in place.
    stages: the curriculum.
    """
    tokenizer = minilm_tokenizer()
    quicken_and_freeze(model, scorer, run.device, run.precision)
    fresh = [*model.decoder.parameters(), *scorer.parameters()]
    tuned = [p for p in model.encoder.parameters() if p.requires_grad]
    group = 4  # the examples of so many batches are sorted by length and cut into batches

    for stage in stages:
        set_dropout(model, stage.dropout)
        optimizer = MasterAdamW([(tuned, stage.encoder_rate), (fresh, stage.decoder_rate)])
        pools: dict[int, list[list[Example]]] = {}

        def batch_loss(step: int, stage: Stage = stage, pools: dict = pools):
            torch.manual_seed(step + 1_000_003 * run.seed)  # the same dropout in a resumed run
            number = step // group
            if number not in pools:
                pools.clear()
                rng = random.Random(f"{run.seed}-{stage.name}-{number}")
                size, make = stage.draw(rng)
                pool = [make() for _ in range(size * group)]
                pool.sort(key=lambda e: sum(len(p.text) for p in e.passages) + len(e.question.text))
                batches = [pool[at : at + size] for at in range(0, len(pool), size)]
                rng.shuffle(batches)
                pools[number] = batches
            batch = collate(tokenizer, pools[number][step % group], scorer.max_span)
            return losses(model, scorer, batch)

        length = run.cut(stage.steps)
        train(
            stage.name,
            batch_loss,
            optimizer,
            length,
            run.work,
            warmup=stage.warmup,
            fingerprint=json.dumps(
                [stage.name, length, stage.encoder_rate, stage.decoder_rate, run.seed, stage.source]
            ),
        )
    return trained_tensors(model, scorer)


def trained_tensors(model: Any, scorer: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The trained tensors, by file: the encoder's upper layers, the decoder, the span scorer."""
    encoder = {n: p for n, p in model.encoder.named_parameters() if p.requires_grad}
    decoder = {n: p for n, p in model.decoder.named_parameters() if p.requires_grad}
    span = dict(scorer.named_parameters())
    return {
        file: {name: p.detach().bfloat16().contiguous() for name, p in tensors.items()}
        for file, tensors in (("encoder", encoder), ("decoder", decoder), ("span", span))
    }
