r"""Trains a low-rank adapter that teaches a causal model to read passages, as a method shows them.

A pretrained language model of a hundred million parameters knows what a question is; asked after a
passage, it goes on writing instead of answering. A few hundred steps on \(W + s B A\) (Hu et al.
2022) change that. What is maximised is the likelihood that the method answers with:

* `reading` is the one that all methods share: half of the steps show one passage, and half several,
  either one after the other or apart from each other, as below;
* `in-context` \(\log p(y \mid z_1 \dots z_n, x)\), every passage seeing those before it;
* `fid` the same of passages that do not see each other: the fused caches of
  `ragbook.models.causal`. To train for this is what Block-Attention does (Ma et al. 2025);
* `rag-sequence` and `rag-token` the marginal over the passages (Lewis et al. 2020), whose prior is
  the retriever's, which stays as it is.

If no passage shown holds the answer, the right answer is the empty one: so \(p(y \mid x, z)\) is
low where \(z\) says nothing, which the sums over passages need. (The marginals of RAG learn nothing
from such questions and leave them out.) In every third example another answer stands in the
passage, so that it has to be read.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.corpus import miniwiki
from ragbook.errors import InputError
from ragbook.files import write_json
from ragbook.methods import rag
from ragbook.models.adapters import (
    CONFIG,
    FACTORS,
    PREFIX,
    PROMPT,
    base_of,
    read_factors,
    write_records,
)
from ragbook.models.causal_prompt import CausalPrompt
from ragbook.models.devices import place
from ragbook.models.inspection import CAUSAL, GeneratorFiles, inspect_generator, loaded
from ragbook.models.rotary import rotation_of
from ragbook.models.smollm2 import SMOLLM2
from ragbook.models.templates import INSTRUCTION, Template
from ragbook.training.loop import MasterAdamW, train, write_tensors
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.worlds import Example
from ragbook.training.run import Run

READING = "reading"
METHODS = (READING, "in-context", "rag-sequence", "rag-token", "fid")
TOGETHER, APART, EACH = "together", "apart", "each"
"""How passages are laid out: one after the other, each seeing those before it; in one row and not
seeing each other; or in a row of its own."""
_TAIL, _PADDING = -1, -2  # parts of a row: passages are numbered, the answer is the tail
_LAYOUTS = {"in-context": TOGETHER, "fid": APART, "rag-sequence": EACH, "rag-token": EACH}


@dataclass(frozen=True)
class Recipe:
    """The settings, the same for every method.

    Parameters
    ----------
    steps, batch, n: updates, questions in one where they are shown one passage, and the most
        passages of a question; with several passages a step has half as many questions.
    rate, warmup: peak learning rate, and the updates over which it rises.
    rank, scale: of the adapter, in all linear layers of all blocks; scale is s.
    layouts: of `reading`, each as likely as another.
    negative: how often a passage that is shown alone does not hold the answer; half as often no one
        of several does.
    """

    steps: int = 300
    batch: int = 8
    n: int = 5
    rate: float = 5e-4
    warmup: int = 20
    rank: int = 8
    scale: float = 2.0
    layouts: tuple[str, ...] = (EACH, EACH, TOGETHER, APART)
    negative: float = 0.2


@dataclass(frozen=True)
class Batch:
    """R rows of prompts with their answers, padded on the left, so that all answers end together.

    Attributes
    ----------
    ids, positions: int64 [R, L].
    allowed: bool [R, L, L], the tokens that each token attends to.
    labels: int64 [R, T], what the last T positions are to predict; -100 before an answer.
    """

    ids: Tensor
    positions: Tensor
    allowed: Tensor
    labels: Tensor


def lay_out(
    prompt: CausalPrompt,
    asked: Sequence[Example],
    layout: str,
    empty: Sequence[bool],
    moves: bool,
) -> Batch:
    """Prompts and answers in tokens, exactly as `ragbook.models.causal.CausalReader` reads them.

    The question follows every passage that is read alone. Passages that do not see each other have
    a copy of the beginning each, at the distance at which they are read, and the answer sees the
    first copy alone.

    Parameters
    ----------
    asked: questions with passages, the best first; their first answer is the target.
    layout: `TOGETHER`, `APART` or `EACH`.
    empty: for each question, whether the empty answer is the right one.
    moves: whether the model's keys can be moved, so that passages apart are one after the other.
    """
    beginning, rows = prompt.beginning(True), []
    first = len(beginning)
    for example, nothing in zip(asked, empty, strict=True):
        pieces = [list(prompt.passage(passage)) for passage in example.passages]
        answer = [prompt.end] if nothing else prompt.answer(example.question.answers[0])
        words, tail = prompt.question(example.question.text), [prompt.start, *answer[:-1]]
        if layout != EACH:
            pieces.reverse()
        if layout == TOGETHER:
            pieces = [[token for piece in pieces for token in piece]]
        pieces = [[*piece, *words] for piece in pieces] or [words]
        for shown in [[piece] for piece in pieces] if layout == EACH else [pieces]:
            parts, begins = [], first
            for z, piece in enumerate(shown):
                parts.append((begins - first, [*beginning, *piece], z))
                begins += len(piece) if moves else 0
            after = max(at + len(ids) for at, ids, _ in parts)
            rows.append(([*parts, (after, tail, _TAIL)], answer))
    lengths = [sum(len(ids) for _, ids, _ in parts) for parts, _ in rows]
    L, T = max(lengths), max(len(answer) for _, answer in rows)
    ids = torch.full((len(rows), L), prompt.end)
    positions = torch.zeros(len(rows), L, dtype=torch.long)
    part_of, copy = torch.full((len(rows), L), _PADDING), torch.zeros(len(rows), L).bool()
    labels = torch.full((len(rows), T), -100)
    for r, (parts, answer) in enumerate(rows):
        at = L - lengths[r]
        for begins, tokens, number in parts:
            end = at + len(tokens)
            ids[r, at:end] = torch.tensor(tokens, dtype=torch.long)
            positions[r, at:end] = begins + torch.arange(len(tokens))
            part_of[r, at:end] = number
            copy[r, at : at + first] = number > 0
            at = end
        labels[r, T - len(answer) :] = torch.tensor(answer)
    from_, to = part_of[:, :, None], part_of[:, None, :]
    order = torch.arange(L)
    allowed = (from_ == to) | ((from_ == _TAIL) & ~copy[:, None, :])
    allowed &= (order <= order[:, None]) & (to != _PADDING)
    return Batch(ids, positions, allowed | (order == order[:, None]), labels)


def answer_log_probs(model: Any, batch: Batch) -> Tensor:
    """log p(y_t | everything before), nats, float32 [R, T], 0 before an answer; with gradients."""
    device = next(model.parameters()).device
    mask = torch.zeros(batch.allowed.shape, dtype=model.dtype)
    mask = mask.masked_fill(~batch.allowed, torch.finfo(model.dtype).min)[:, None]
    logits = model(
        input_ids=batch.ids.to(device),
        attention_mask=mask.to(device),
        position_ids=batch.positions.to(device),
        logits_to_keep=batch.labels.shape[1],
        use_cache=False,
    ).logits.float()
    labels = batch.labels.to(device)
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp_min(0)[:, :, None]).squeeze(-1)
    return chosen.masked_fill(labels == -100, 0.0)


def add_factors(model: nn.Module, recipe: Recipe, stored: dict[str, Tensor]) -> list[nn.Parameter]:
    """Freeze a model and add an adapter to it, in place; returns the factors.

    Parameters
    ----------
    stored: the factors of an adapter that training goes on from, by their names in a file; without
        any the new adapter changes nothing at first.

    Raises
    ------
    InputError: the stored factors are of other layers or another rank.
    """
    from peft import LoraConfig, inject_adapter_in_model

    model.requires_grad_(False)
    config = LoraConfig(
        r=recipe.rank, lora_alpha=round(recipe.rank * recipe.scale), target_modules="all-linear"
    )
    inject_adapter_in_model(config, model)
    own = factors(model)
    if stored and {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in stored.items()}:
        raise InputError(
            f"the adapter to go on from has other layers or another rank than {recipe.rank}; begin "
            "with its base model"
        )
    with torch.no_grad():
        for name, factor in own.items():
            if name in stored:
                factor.copy_(stored[name])
    return list(own.values())


def factors(model: nn.Module) -> dict[str, nn.Parameter]:
    """An adapter's factors, by the names that peft gives them in a file."""
    named = ((n, p) for n, p in model.named_parameters() if ".lora_" in n)
    return {PREFIX + name.replace(".default.", "."): p for name, p in named}


class Shown:
    """Draws the questions of each step, and the passages and the layout that a method shows."""

    def __init__(self, method: str, source: GoldExamples, recipe: Recipe, seed: int) -> None:
        self.method, self.source, self.recipe, self.seed = method, source, recipe, seed
        self.place = {question.text: at for at, question in enumerate(source.questions)}

    def __call__(self, step: int) -> tuple[list[Example], str]:
        """The examples of a step, with the same number of passages each, and their layout."""
        rng = random.Random(f"lora-{self.seed}-{step}")
        several = rng.randint(2, self.recipe.n)
        if self.method == READING:
            layout = rng.choice(self.recipe.layouts)
        else:
            layout = _LAYOUTS[self.method]
        n = 1 if self.method == READING and layout == EACH else several
        parts = 1 if n == 1 else 2
        negative, count = self.recipe.negative / parts, self.recipe.batch // parts
        return [self.source.example(rng, n, negative) for _ in range(count)], layout

    def log_prior(self, examples: Sequence[Example]) -> Tensor:
        """log p(z | x) of the passages shown, by the retriever's scores, float32 [B, n]."""
        keys, corpus = self.source.keys, self.source.corpus
        rows = torch.tensor([[corpus.position(p.id) for p in e.passages] for e in examples])
        queries = self.source.queries[[self.place[e.question.text] for e in examples]]
        scores = (keys[rows] @ queries[:, :, None]).squeeze(-1)
        return (self.source.score_scale * scores).log_softmax(-1)


def objective(
    method: str, model: Any, prompt: CausalPrompt, shown: Shown, step: int, moves: bool
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a step, nats an answer, and figures to log; for `moves` see `lay_out`."""
    examples, layout = shown(step)
    n = len(examples[0].passages)
    if method in ("rag-sequence", "rag-token"):
        batch = lay_out(prompt, examples, layout, [False] * len(examples), moves)
        own = (batch.labels[::n] != -100).to(model.device)
        given = answer_log_probs(model, batch).reshape(len(examples), n, -1)
        prior = shown.log_prior(examples).to(given)
        marginal = rag.sequence_log_prob if method == "rag-sequence" else rag.token_log_prob
        # A question none of whose passages holds the answer teaches nothing about reading.
        held = torch.tensor([e.gold is not None for e in examples], device=given.device)
        loss = -(marginal(given, prior, own) * held).sum() / held.sum().clamp_min(1)
    else:
        batch = lay_out(prompt, examples, layout, [e.gold is None for e in examples], moves)
        loss = -answer_log_probs(model, batch).sum(-1).mean()
    return loss, {layout: loss.item()} if method == READING else {"nll": loss.item()}


def recipe(run: Run, method: str = READING, reader: str = SMOLLM2) -> None:
    """`ragbook train lora`: an adapter for a causal model, on MiniWiki's train questions or your
    own, in a folder that can be named as a reader.

    Parameters
    ----------
    method: one of `METHODS`.
    reader: the model, or an adapter of one, from which training goes on.

    Raises
    ------
    InputError: there is no such method, or the reader is no causal model.
    """
    train_adapter(run, method, reader, Recipe())


def train_adapter(run: Run, method: str, reader: str, settings: Recipe) -> None:
    """The same with other settings."""
    if method not in METHODS:
        raise InputError(f"there is no objective {method!r}; choose from {', '.join(METHODS)}")
    found = inspect_generator(reader)
    if found.kind != CAUSAL:
        raise InputError(f"{reader} is not a decoder-only model; an adapter is trained for one")
    run.begin()
    model, tokenizer = loaded(replace(found, adapter=None))
    place(model, run.device, run.precision)
    torch.manual_seed(run.seed)  # of the factors' first values
    stored = {} if found.adapter is None else _earlier(reader, found.adapter, settings)
    parameters = add_factors(model.eval(), settings, stored)
    template = Template(INSTRUCTION)
    prompt = CausalPrompt(tokenizer, template, (), tokenizer.eos_token_id)
    corpus, questions = run.own or (miniwiki.corpus(), miniwiki.questions("train"))
    source = GoldExamples(corpus, questions, str(run.where))
    shown = Shown(method, source, settings, run.seed)
    length = run.cut(settings.steps)
    moves = rotation_of(model) is not None
    optimizer = MasterAdamW([(parameters, settings.rate)], weight_decay=0.0)
    train(
        method,
        lambda step: objective(method, model, prompt, shown, step, moves),
        optimizer,
        length,
        run.work,
        warmup=settings.warmup,
        save_every=25,
        fingerprint=json.dumps(
            [method, reader, repr(settings), length, run.seed, source.sha256, repr(template)]
        ),
    )
    _write(run.out, _base(found, reader), model, settings, template)


def _earlier(reader: str, folder: Path, settings: Recipe) -> dict[str, Tensor]:
    """The factors of the adapter that training goes on from; InputError if it has another scale."""
    stored, scales = read_factors(reader, folder)
    if set(scales.values()) != {settings.scale}:
        raise InputError(
            f"{reader} has another scale than {settings.scale}; begin with its base model"
        )
    return stored


def _base(found: GeneratorFiles, reader: str) -> str:
    """The name of the model that the adapter changes, as its file gives it."""
    base = reader if found.adapter is None else base_of(reader, found.adapter)
    return str(Path(base).resolve()) if Path(base).is_dir() and base != SMOLLM2 else base


def _write(out: Path, base: str, model: nn.Module, settings: Recipe, template: Template) -> None:
    """Write the adapter's files; the list of them comes last, and the factors are bfloat16."""
    write_tensors(
        out / FACTORS,
        {name: p.detach().cpu().bfloat16().contiguous() for name, p in factors(model).items()},
        format="pt",
    )
    write_json(
        out / CONFIG,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": settings.rank,
            "lora_alpha": round(settings.rank * settings.scale),
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": sorted({name.split(".")[-3] for name in factors(model)}),
            "inference_mode": True,
        },
    )
    write_json(out / PROMPT, asdict(template))
    write_records(out)
