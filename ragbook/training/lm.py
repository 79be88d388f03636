"""Trains kNN-LM's base model: the embedded encoder, turned into a left-to-right language model.

It reads MiniWiki's train articles, a third of the time with a neighbouring passage in front (so
that it learns to use a passage in its prompt), train questions with their answers, and invented
worlds told in the same two forms, whose passages teach the shape of sentences and not their facts.
"""

from __future__ import annotations

import json
import random
import re

import torch
from torch import Tensor
from torch.nn import functional

from ragbook.corpus import miniwiki
from ragbook.errors import InputError
from ragbook.models import load_encoder
from ragbook.models.lm import LanguageModel, new_lm_model
from ragbook.training import worlds
from ragbook.training.curriculum import vocabulary_words
from ragbook.training.loop import MasterAdamW, train, write_tensors
from ragbook.training.run import Run

FROZEN_LAYERS = 2
STEPS, BATCH = 350, 24


def train_lm(run: Run) -> dict[str, Tensor]:
    """Train or resume; returns the trained tensors in bfloat16."""
    torch.manual_seed(run.seed)
    encoder = load_encoder()
    model = new_lm_model()
    model.set_attn_implementation("eager")
    lm = LanguageModel(model.bfloat16(), encoder.tokenizer, "lm")
    for name, parameter in model.named_parameters():
        layer = re.search(r"encoder\.layer\.(\d+)\.", name)
        parameter.requires_grad = name.startswith("cls.") or (
            layer is not None and int(layer[1]) >= FROZEN_LAYERS
        )
    words = vocabulary_words(encoder.tokenizer)
    articles = [a for a in miniwiki.articles() if a.split == "train"]
    passages = [p for a in articles for p in a.passages]
    questions = list(miniwiki.questions("train"))
    keys = torch.from_numpy(encoder.encode_passages(passages))
    neighbours = (keys @ keys.T).topk(4).indices.tolist()

    def draw(rng: random.Random) -> tuple[list[int], int]:
        """(token ids, how many of them are only context)."""
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
        states = model.bert(input_ids=ids, attention_mask=(ids != 0).long(), use_cache=False)[0]
        asked = labels[:, 1:] != -100  # the vocabulary is wide: no logits where none are asked for
        logits = model.cls(states[:, :-1][asked])
        loss = functional.cross_entropy(logits.float(), labels[:, 1:][asked])
        return loss, {"loss": loss.item()}

    fresh = [p for n, p in model.named_parameters() if n.startswith("cls.")]
    body = [p for n, p in model.named_parameters() if not n.startswith("cls.")]
    length = run.cut(STEPS)
    train(
        "lm",
        batch_loss,
        MasterAdamW([(body, 2e-4), (fresh, 5e-4)]),
        length,
        run.work,
        fingerprint=json.dumps(["lm", length, BATCH, run.seed]),
    )
    return {
        name: p.detach().bfloat16().contiguous()
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def recipe(run: Run) -> None:
    """`ragbook train lm`: train and write `lm.safetensors` into `run.out`."""
    if run.own is not None:
        raise InputError("The recipe lm has no questions; leave --corpus and --questions out.")
    run.begin()
    write_tensors(run.out / "lm.safetensors", train_lm(run))
