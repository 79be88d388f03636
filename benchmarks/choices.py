"""Alternatives to the readers' recipe, each trained for the same time.

`python benchmarks/choices.py [NAME ...]` trains every alternative (or the named ones) for the same
wall-clock time on this machine, with seed 0, and prints one row each: steps, seconds a step, and
how many answers greedy decoding gets right, token for token,

* on 500 questions about invented worlds, whose names are always new,
* on MiniWiki's dev questions with the gold passage.

Ten steps are timed, and then as many steps are taken as fit into the time, which `--seconds` sets
(default: 180).
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn
from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel

from ragbook.corpus import miniwiki
from ragbook.models.bundled import new_reader_model
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.prompts import passage_text
from ragbook.models.span import SpanScorer
from ragbook.training.loop import MasterAdamW, schedule
from ragbook.training.reader import worlds
from ragbook.training.reader.curriculum import vocabulary_words
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.train import ReaderBatch, collate, losses, quicken_and_freeze
from ragbook.training.reader.worlds import Example

WORLDS_SEED, WORLDS, WARMUP = 2026, 500, 50
ENCODER_RATE, DECODER_RATE, SCRATCH_RATE = 1.5e-4, 7e-4, 5e-4

Draw = Callable[[random.Random], list[Example]]


@dataclass
class Reader:
    """A reader in training: the model, the function that turns examples into tensors, and the
    optimiser's groups of parameters."""

    model: Any
    scorer: SpanScorer
    collate: Callable[[Sequence[Example]], ReaderBatch]
    groups: list[tuple[list[nn.Parameter], float]]


def plain(tokenizer: Any) -> Callable[[Sequence[Example]], ReaderBatch]:
    """The function of the package that turns examples into tensors."""
    return lambda examples: collate(tokenizer, examples, 10)


def reader(layers: int = 2, width: int = 1536, float32: bool = False) -> Reader:
    """The package's own reader, with a decoder of so many layers and this width."""
    torch.manual_seed(0)
    model, scorer = new_reader_model(), SpanScorer(384)
    if (layers, width) != (2, 1536):
        shape = {**model.decoder.config.to_dict(), "num_hidden_layers": layers}
        decoder = BertLMHeadModel(BertConfig(**{**shape, "intermediate_size": width}))
        words = model.encoder.embeddings.word_embeddings
        decoder.bert.embeddings.word_embeddings = words
        decoder.cls.predictions.decoder.weight = words.weight
        model = with_decoder(model, decoder)
    quicken_and_freeze(model, scorer, precision="float32" if float32 else "bfloat16")
    fresh = [*model.decoder.parameters(), *scorer.parameters()]
    groups = [(list(model.encoder.parameters()), ENCODER_RATE), (fresh, DECODER_RATE)]
    return Reader(model, scorer, plain(minilm_tokenizer()), groups)


def with_decoder(model: Any, decoder: Any) -> Any:
    """The model's encoder with another decoder."""
    out = EncoderDecoderModel(encoder=model.encoder, decoder=decoder)
    out.config.decoder_start_token_id = model.config.decoder_start_token_id
    return out


def from_scratch() -> Reader:
    """The same shapes with random encoder and word embeddings; everything is trained."""
    built = reader()
    built.model.encoder.load_state_dict(
        BertModel(built.model.encoder.config, add_pooling_layer=False).state_dict()
    )
    built.model.bfloat16()
    for parameter in built.model.parameters():
        parameter.requires_grad = True
    everything = [*built.model.parameters(), *built.scorer.parameters()]
    built.groups = [(everything, SCRATCH_RATE)]
    return built


def without_pointer() -> Reader:
    """The package's own reader, trained without the pointer loss."""
    built = reader()

    def silent(examples: Sequence[Example]) -> ReaderBatch:
        batch = collate(minilm_tokenizer(), examples, 10)
        return replace(batch, pointer=torch.zeros_like(batch.pointer))

    built.collate = silent
    return built


def small_vocabulary(size: int) -> Reader:
    """A decoder whose vocabulary is the `size` commonest tokens, with trained embeddings."""
    tokenizer = minilm_tokenizer()
    vocabulary = tokenizer.get_vocab()
    counts = dict.fromkeys(vocabulary, 0)
    for passage in miniwiki.corpus():
        for piece in tokenizer.tokenize(passage_text(passage)):
            counts[piece] += 1
    needed = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", *(p for p in vocabulary if len(p) == 1)}
    needed |= {p for p in vocabulary if len(p) == 3 and p.startswith("##")}
    common = sorted(set(vocabulary) - needed, key=lambda p: (-counts[p], vocabulary[p]))
    kept = sorted([*needed, *common[: size - len(needed)]], key=vocabulary.__getitem__)
    written = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(kept)}, unk_token="[UNK]")
    )
    written.normalizer = normalizers.BertNormalizer(lowercase=True)
    written.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    start, end = kept.index("[CLS]"), kept.index("[SEP]")

    built = reader()
    decoder = built.model.decoder
    rows = decoder.bert.embeddings.word_embeddings.weight[[vocabulary[piece] for piece in kept]]
    words = nn.Embedding.from_pretrained(rows.detach().clone(), freeze=False)
    decoder.bert.embeddings.word_embeddings = words
    decoder.cls.predictions.decoder = nn.Linear(384, len(kept), dtype=rows.dtype)
    decoder.cls.predictions.decoder.weight = words.weight
    built.model.config.decoder_start_token_id = start
    fresh = [*decoder.parameters(), *built.scorer.parameters()]
    built.groups[1] = (fresh, DECODER_RATE)

    def cut(examples: Sequence[Example]) -> ReaderBatch:
        """The batch with labels in the smaller vocabulary; each token points to the same places as
        the tokens of the large vocabulary that it overlaps."""
        batch = collate(tokenizer, examples, 10)
        answers = [e.question.answers[0] for e in examples]
        whole = tokenizer(answers, add_special_tokens=False, return_offsets_mapping=True)
        pieces = [written.encode(answer) for answer in answers]
        longest = max(len(one.ids) for one in pieces) + 1
        labels = torch.full((len(examples), longest), -100)
        pointer = torch.zeros(len(examples), longest, batch.pointer.shape[-1], dtype=torch.bool)
        for row, one in enumerate(pieces):
            if batch.labels[row, 0] == tokenizer.sep_token_id:
                labels[row, 0] = end
                continue
            labels[row, : len(one.ids) + 1] = torch.tensor([*one.ids, end])
            for t, (begin, stop) in enumerate(one.offsets):
                for i, (a, b) in enumerate(whole["offset_mapping"][row][: batch.pointer.shape[1]]):
                    if a < stop and begin < b:
                        pointer[row, t] |= batch.pointer[row, i]
        return replace(batch, labels=labels, pointer=pointer)

    built.collate = cut
    return built


def worlds_of(rng: random.Random) -> list[Example]:
    """The examples of one step: short invented worlds."""
    words = vocabulary_words(minilm_tokenizer())
    return [worlds.example(rng, 1, (1, 2), 0.1, words) for _ in range(64)]


def questions_of(source: GoldExamples, infilling: float) -> Draw:
    """A function that draws the examples of a step from MiniWiki's questions and cloze sentences,
    with a share of infilling examples."""

    def draw(rng: random.Random) -> list[Example]:
        if rng.random() < infilling:
            return [source.infilling(rng) for _ in range(32)]
        return [
            source.cloze_example(rng) if rng.random() < 0.2 else source.example(rng, 1, 0.2)
            for _ in range(32)
        ]

    return draw


def learn(built: Reader, draw: Draw, seconds: float) -> tuple[int, float]:
    """Train for that long: (steps, seconds a step)."""
    optimizer = MasterAdamW(built.groups)

    def step(number: int, scale: float) -> None:
        loss, _ = losses(
            built.model, built.scorer, built.collate(draw(random.Random(f"0-{number}")))
        )
        loss.backward()
        optimizer.step(scale)

    built.model.train()
    for module in built.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for number in range(3):
        step(number, 0.0)  # allocates memory; no weight changes
    began = time.perf_counter()
    for number in range(10):
        step(number, 0.0)
    each = (time.perf_counter() - began) / 10
    steps = round(seconds / each)
    for number in range(steps):
        step(number, schedule(number, steps, WARMUP))
    return steps, each


@torch.no_grad()
def right(built: Reader, examples: Sequence[Example]) -> float:
    """Share of answers that greedy decoding gets right, token for token, in %.

    Greedy decoding gives the gold answer exactly if each of its tokens is the likeliest after those
    before it, which one forward pass over the answer shows.
    """
    built.model.eval()
    total = 0.0
    for at in range(0, len(examples), 50):
        some = examples[at : at + 50]
        total += losses(built.model, built.scorer, built.collate(some))[1]["greedy_em"] * len(some)
    return 100 * total / len(examples)


def main(names: Sequence[str], seconds: float) -> None:
    """Print one row for each alternative."""
    corpus = miniwiki.corpus()
    train = GoldExamples(corpus, miniwiki.questions("train"))
    dev = [
        Example(q, (corpus.get(q.gold_passage or ""),), 0)
        for q in GoldExamples(corpus, miniwiki.questions("dev")).questions
    ]
    rng, words = random.Random(WORLDS_SEED), vocabulary_words(minilm_tokenizer())
    unseen = [worlds.example(rng, 1, (1, 2), 0.0, words) for _ in range(WORLDS)]
    asked, restored = questions_of(train, 0.0), questions_of(train, 0.3)
    alternatives: dict[str, tuple[Callable[[], Reader], list[tuple[Draw, float]]]] = {
        "as shipped": (reader, [(worlds_of, 1.0)]),
        "encoder from scratch": (from_scratch, [(worlds_of, 1.0)]),
        "without the pointer loss": (without_pointer, [(worlds_of, 1.0)]),
        "4,000 output pieces": (lambda: small_vocabulary(4000), [(worlds_of, 1.0)]),
        "8,000 output pieces": (lambda: small_vocabulary(8000), [(worlds_of, 1.0)]),
        "decoder of 1 layer": (lambda: reader(1), [(worlds_of, 1.0)]),
        "decoder of 4 layers": (lambda: reader(4), [(worlds_of, 1.0)]),
        "decoder thrice as wide": (lambda: reader(2, 4608), [(worlds_of, 1.0)]),
        "float32": (lambda: reader(float32=True), [(worlds_of, 1.0)]),
        "worlds, then MiniWiki": (reader, [(worlds_of, 1.0), (asked, 1.0)]),
        "MiniWiki alone": (reader, [(asked, 2.0)]),
        "worlds, then MiniWiki with infilling": (reader, [(worlds_of, 1.0), (restored, 1.0)]),
    }
    print(f"{'':<38}{'steps':>8}{'s/step':>8}{'worlds':>8}{'dev':>8}   (n = 500, {len(dev)})")
    for name in names or alternatives:
        make, stages = alternatives[name]
        built = make()
        steps, each = 0, 0.0
        for draw, share in stages:
            taken, each = learn(built, draw, share * seconds)
            steps += taken
        found = right(built, unseen), right(built, dev)
        print(f"{name:<38}{steps:>8}{each:>8.2f}{found[0]:>8.1f}{found[1]:>8.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Alternatives of the readers' recipe.")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=float, default=180)
    given = parser.parse_args()
    main(given.names, given.seconds)
