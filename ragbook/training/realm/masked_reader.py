r"""The masked reader's warm start: it learns to find the hidden words in the passage beside it.

In the paper the knowledge-augmented encoder starts from BERT, whose head predicts masked tokens
already. The embedded encoder was published without a head, so it gets a new one and is trained
first without the retriever: each masked sentence is shown with one passage, and the loss is the
hidden tokens' cross-entropy. Most often the passage is the sentence's own or another that holds the
answer; sometimes it is a random one or the null document, so that the reader learns not to copy in
every case. (The retriever is not trained here, and later the sentence's own passage is never shown
again.)

A pointer loss is added, as in `ragbook.training.reader.train`: the mean attention of the last layer
from a hidden token should be on that token in the passage. With it the reader learns to copy in a
few hundred steps; from the words alone it takes many thousand.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ragbook.corpus import Corpus, Passage
from ragbook.models import load_reader
from ragbook.models.answers import find
from ragbook.models.masked import NULL, MaskedHead, MaskedReader
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.realm.masking import Masked, sha256_of_masked

SHOWN = {"own": 0.4, "holder": 0.4, "other": 0.1, "null": 0.1}
"""How often a sentence is shown with its own passage, with another that holds the answer, with a
random one, and with the null document."""


@dataclass(frozen=True)
class ReaderRecipe:
    """The settings of the reader's warm start: sentences in an update, updates, peak rates of the
    encoder's upper layers and of the head, layers from the bottom that are not trained."""

    batch: int = 24
    steps: int = 700
    rate: float = 1.5e-4
    head_rate: float = 1e-3
    frozen_layers: int = 2


def new_masked_reader(seed: int = 0) -> MaskedReader:
    """The bundled reader's encoder, which reads questions beside passages, with a new head."""
    reader = load_reader()
    encoder = deepcopy(reader.model.get_encoder())
    torch.manual_seed(seed)
    head = MaskedHead(encoder.config.hidden_size, encoder.config.vocab_size)
    return MaskedReader(encoder, head, reader.tokenizer)


def freeze(reader: MaskedReader, frozen_layers: int) -> None:
    """Freeze all but the head and the encoder's layers from `frozen_layers` on."""
    for module in reader.model.modules():  # its layers have a configuration of their own
        if hasattr(module, "config"):
            module.config._attn_implementation = "eager"  # faster, and returns attention weights
    for name, parameter in reader.model.named_parameters():
        layer = re.match(r"encoder\.layer\.(\d+)\.", name)
        parameter.requires_grad = layer is not None and int(layer[1]) >= frozen_layers
    reader.head.requires_grad_(True)


def train_masked_reader(
    reader: MaskedReader,
    corpus: Corpus,
    masked: Sequence[Sequence[Masked]],
    work: Path,
    recipe: ReaderRecipe = ReaderRecipe(),
    seed: int = 0,
    progress: bool | None = None,
) -> None:
    """Train a reader in place, or resume its training; its parameters may be bfloat16.

    Raises
    ------
    InputError: `work` holds a run with other settings.
    """
    freeze(reader, recipe.frozen_layers)

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = random.Random(f"{seed}-reader-{step}")
        shown = [rng.choice(rng.choice(masked)) for _ in range(recipe.batch)]
        return loss(reader, shown, [passage_beside(corpus, one, rng) for one in shown])

    upper = [p for p in reader.model.parameters() if p.requires_grad]
    train(
        "reader",
        batch_loss,
        MasterAdamW([(upper, recipe.rate), (list(reader.head.parameters()), recipe.head_rate)]),
        recipe.steps,
        work,
        warmup=max(1, recipe.steps // 10),
        fingerprint=json.dumps([repr(recipe), seed, corpus.sha256, sha256_of_masked(masked)]),
        progress=progress,
    )


def passage_beside(corpus: Corpus, masked: Masked, rng: random.Random) -> Passage:
    """The passage that a sentence is shown with, drawn as in `SHOWN`. Passages of its own article
    are preferred among those that hold the answer."""
    (kind,) = rng.choices(list(SHOWN), list(SHOWN.values()))
    if kind == "null":
        return NULL
    if kind == "own":
        return corpus[masked.source]
    if kind == "other":
        return corpus[rng.randrange(len(corpus))]
    title = corpus[masked.source].title
    near = [at for at in masked.holders if corpus[at].title == title]
    return corpus[rng.choice(near or masked.holders)]


def loss(
    reader: MaskedReader, shown: Sequence[Masked], passages: Sequence[Passage]
) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the hidden tokens plus half of the pointer loss, and their parts."""
    inputs, inside, out = reader.states([m.text for m in shown], passages, output_attentions=True)
    places = reader.places(inputs, inside)
    logits = reader.head(out.last_hidden_state[places], reader.words)
    targets = torch.tensor([token for m in shown for token in m.answer]).to(logits.device)
    words = functional.cross_entropy(logits, targets)
    right = (logits.argmax(-1) == targets).float().mean().item()
    figures = {"words": words.item(), "right": right}

    rows, hidden, stands = [], [], []
    own = inputs["input_ids"] * inside
    for row, (masked, ids) in enumerate(zip(shown, own.tolist(), strict=True)):
        at = find(ids, masked.answer)
        if at >= 0:
            mine = places[row].nonzero().flatten().tolist()
            rows += [row] * len(mine)
            hidden += mine
            stands += range(at, at + len(mine))
    if not rows:
        return words, figures
    attention = out.attentions[-1].float().mean(1)  # [N, L, L]
    pointer = -(attention[rows, hidden, stands] + 1e-6).log().mean()
    return words + 0.5 * pointer, figures | {"pointer": pointer.item()}
