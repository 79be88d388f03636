"""Trains kNN-LM's base model: the embedded encoder, turned into a left-to-right language model.

It reads MiniWiki's train articles, a third of the time after a neighbouring passage (so that it
learns to use a passage in its prompt), train questions with their answers, and invented worlds in
the same two forms, whose passages teach how sentences are built and not their facts.

With your own passages or articles, the bundled model is trained further on windows of them, and a
whole checkpoint is written.
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from bisect import bisect_right
from copy import deepcopy
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertLMHeadModel

from ragbook.corpus import Corpus, miniwiki
from ragbook.errors import InputError
from ragbook.models import load_encoder, load_language_model
from ragbook.models.devices import place
from ragbook.models.lm import LanguageModel, new_lm_model
from ragbook.training.loop import MasterAdamW, train, write_tensors
from ragbook.training.reader import worlds
from ragbook.training.reader.curriculum import vocabulary_words
from ragbook.training.run import Run

FROZEN_LAYERS = 2
STEPS, BATCH = 350, 24

OWN_BATCH, OWN_WINDOW, EPOCHS = 12, 128, 2
"""For an adaptation to your own text: windows in a step, tokens in a window, and epochs."""


def _trained(model: BertLMHeadModel) -> list[tuple[list[nn.Parameter], float]]:
    """Freeze all but the upper layers and the output head: (parameters, learning rate) of both."""
    for name, parameter in model.named_parameters():
        layer = re.search(r"encoder\.layer\.(\d+)\.", name)
        parameter.requires_grad = name.startswith("cls.") or (
            layer is not None and int(layer[1]) >= FROZEN_LAYERS
        )
    fresh = [p for n, p in model.named_parameters() if n.startswith("cls.")]
    body = [p for n, p in model.named_parameters() if not n.startswith("cls.")]
    return [(body, 2e-4), (fresh, 5e-4)]


def train_lm(run: Run) -> dict[str, Tensor]:
    """Train the bundled model, or resume its training; returns the trained tensors, bfloat16
    whatever they were trained in."""
    torch.manual_seed(run.seed)
    encoder = load_encoder().to(str(run.where))
    model = place(new_lm_model(), run.device, run.precision)
    model.set_attn_implementation("eager")
    lm = LanguageModel(model, encoder.tokenizer, "lm")
    groups = _trained(model)
    words = vocabulary_words(encoder.tokenizer)
    articles = [a for a in miniwiki.articles() if a.split == "train"]
    passages = [p for a in articles for p in a.passages]
    questions = list(miniwiki.questions("train"))
    keys = torch.from_numpy(encoder.encode_passages(passages))
    neighbours = (keys @ keys.T).topk(4).indices.tolist()

    def draw(rng: random.Random) -> tuple[list[int], int]:
        """One text: its token ids, and how many of them are only context and not predicted."""
        kind = rng.random()
        if kind < 0.45:
            at = rng.randrange(len(passages))
            ids = lm.passage_ids(passages[at])
            if rng.random() < 0.33:
                context = lm.passage_ids(passages[rng.choice(neighbours[at][1:])])[:128]
                return [*context, *ids[1:]], len(context)
            return ids, 1
        if kind < 0.80:
            question = rng.choice(questions)
            prompt = lm.prompt_ids(question.text)
            answer = encoder.tokenizer(question.answers[0], add_special_tokens=False)["input_ids"]
            return [*prompt, *answer, lm.end], len(prompt)
        example = worlds.example(rng, 1, (2, 6), 0.0, words)
        return lm.passage_ids(example.passages[0]), 1

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = random.Random(f"{run.seed}-lm-{step}")
        rows = [draw(rng) for _ in range(BATCH)]
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(r[:256]) for r, _ in rows], batch_first=True, padding_value=0
        )
        labels = ids.masked_fill(ids == 0, -100)
        for row, (_, context) in enumerate(rows):
            labels[row, :context] = -100
        ids, labels = ids.to(run.where), labels.to(run.where)
        states = model.bert(input_ids=ids, attention_mask=(ids != 0).long(), use_cache=False)[0]
        asked = labels[:, 1:] != -100  # logits are costly: compute only those that have labels
        logits = model.cls(states[:, :-1][asked])
        loss = functional.cross_entropy(logits.float(), labels[:, 1:][asked])
        return loss, {"loss": loss.item()}

    length = run.cut(STEPS)
    train(
        "lm",
        batch_loss,
        MasterAdamW(groups),
        length,
        run.work,
        fingerprint=json.dumps(["lm", length, BATCH, run.seed]),
    )
    return {
        name: p.detach().bfloat16().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def adapt_lm(run: Run, corpus: Corpus, start: LanguageModel | None = None) -> LanguageModel:
    """Train a model further on a corpus, or resume this training; returns the model, float32 and on
    the CPU.

    A step reads windows of OWN_WINDOW tokens that begin anywhere in the passages, which may be
    whole articles. Training ends when EPOCHS times as many tokens as there are were read.

    Parameters
    ----------
    start: the bundled model, or one that was trained from it; it is not changed.

    Raises
    ------
    InputError: the corpus is empty, or `run.out` holds the checkpoint of another run.
    """
    start = start or load_language_model()
    model = place(deepcopy(start.model), run.device, run.precision)
    lm = LanguageModel(model, start.tokenizer, str(run.out))
    model.set_attn_implementation("eager")
    texts = lm.texts(list(corpus))
    ends = list(accumulate(len(ids) - 1 for ids in texts))
    if not texts:
        raise InputError(f"Corpus {corpus.name!r} has no passages; give a corpus with some.")

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = random.Random(f"{run.seed}-own-{step}")
        rows = []
        for _ in range(OWN_BATCH):
            drawn = rng.randrange(ends[-1])
            text = bisect_right(ends, drawn)
            at = drawn - ends[text] + len(texts[text])  # 1 at the text's first token
            rows.append(torch.tensor([lm.start, *texts[text][at : at + OWN_WINDOW - 1]]))
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=0)
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()  # token 0 may be a word
        ids, mask = ids.to(run.where), mask.to(run.where)
        states = model.bert(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        asked = mask[:, 1:].bool()
        logits = model.cls(states[:, :-1][asked])
        loss = functional.cross_entropy(logits.float(), ids[:, 1:][asked])
        return loss, {"loss": loss.item()}

    length = run.cut(math.ceil(EPOCHS * ends[-1] / (OWN_BATCH * OWN_WINDOW)))
    train(
        "lm",
        batch_loss,
        MasterAdamW(_trained(model)),
        length,
        run.work,
        warmup=min(30, length // 4 + 1),
        save_every=50,
        fingerprint=json.dumps([start.sha256, corpus.sha256, length, OWN_BATCH, run.seed]),
    )
    place(model).requires_grad_(False)
    return lm


def write_checkpoint(lm: LanguageModel, run: Run) -> None:
    """Write the model and its tokenizer into `run.out`, as `transformers` does. `config.json` comes
    last, so that an unfinished folder is not taken for a checkpoint."""
    partial = run.work / "checkpoint"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    lm.model.save_pretrained(partial)
    lm.tokenizer.save_pretrained(partial)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == "config.json"):
        path.replace(run.out / path.name)


def recipe(run: Run) -> None:
    """`ragbook train lm`: train and write `lm.safetensors` into `run.out`; or, with your own
    passages, adapt the bundled model to them and write a checkpoint that `--lm` takes."""
    if run.own is None:
        run.begin()
        write_tensors(run.out / "lm.safetensors", train_lm(run))
        return
    corpus, questions = run.own
    if next(iter(questions), None) is not None:
        raise InputError("The recipe lm learns from passages alone; leave --questions out.")
    run.begin()
    write_checkpoint(adapt_lm(run, corpus), run)
