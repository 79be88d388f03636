"""The stages of the readers' training: which examples are shown, and in which order."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ragbook.training.reader import worlds
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.worlds import Example


def vocabulary_words(tokenizer: Any) -> list[str]:
    """Whole alphabetic words of the tokenizer, in the order of their ids."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [w for w, _ in vocabulary if len(w) > 2 and re.fullmatch("[a-z]+", w)]


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: `draw` gives (examples in a step, a function that makes one).

    `dropout` is applied to the trained layers' outputs. Invented worlds are never repeated and need
    none, while four thousand real questions would soon be learned by heart. `source` is a hash of
    the questions and passages, so that a run is only resumed with the data it began with. `warmup`
    is in steps; it is longer in the first stage, whose decoder is new.
    """

    name: str
    steps: int
    encoder_rate: float
    decoder_rate: float
    draw: Callable[[random.Random], tuple[int, Callable[[], Example]]]
    dropout: float = 0.0
    source: str = ""
    warmup: int = 50


def fine_tuning(tokenizer: Any, source: GoldExamples) -> list[Stage]:
    """The stage for readers that are already trained: your questions, and some invented worlds."""
    words = vocabulary_words(tokenizer)

    def own(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        kind = rng.random()
        if kind < 0.5:
            return 24, lambda: source.example(rng, 1, 0.2)
        if kind < 0.85:
            return 6, lambda: source.example(rng, 5, 0.05)
        return 32, lambda: worlds.example(rng, 1, (1, 7), 0.1, words)

    return [Stage("own", 300, 5e-5, 1.5e-4, own, 0.1, source.sha256)]


def curriculum(tokenizer: Any, source: GoldExamples) -> list[Stage]:
    """First short invented passages, then longer ones and several at a time, then MiniWiki mixed
    with these, then up to ten passages at a time, with infilling examples between them.
    """
    words = vocabulary_words(tokenizer)

    def short(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        return 64, lambda: worlds.example(rng, 1, (1, 2), 0.1, words)

    def long(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        if rng.random() < 0.6:
            return 48, lambda: worlds.example(rng, 1, (2, 7), 0.2, words)
        n = rng.choice([3, 5])
        return 60 // n, lambda: worlds.example(rng, n, (1, 4), 0.05, words)

    def single(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        kind = rng.random()
        if kind < 0.50:
            return (
                32,
                lambda: (
                    source.cloze_example(rng) if rng.random() < 0.2 else source.example(rng, 1, 0.2)
                ),
            )
        if kind < 0.80:
            return 8, lambda: source.example(rng, 5, 0.05)
        if kind < 0.84:
            return 64, lambda: source.closed_book(rng)
        return short(rng) if kind < 0.90 else long(rng)

    def many(rng: random.Random) -> tuple[int, Callable[[], Example]]:
        kind = rng.random()
        if kind < 0.30:
            return 4, lambda: source.example(rng, 10, 0.05)
        if kind < 0.55:
            return 8, lambda: source.example(rng, 5, 0.05)
        if kind < 0.70:
            return 32, lambda: source.infilling(rng)
        if kind < 0.80:
            return 6, lambda: worlds.example(rng, 10, (1, 5), 0.05, words)
        return single(rng)

    return [
        Stage("short-worlds", 700, 1.5e-4, 7e-4, short, warmup=100),
        Stage("long-worlds", 250, 1.5e-4, 5e-4, long),
        Stage("miniwiki", 1700, 1.2e-4, 4e-4, single, 0.1, source.sha256),
        Stage("many-passages", 1200, 6e-5, 2e-4, many, 0.1, source.sha256),
    ]
