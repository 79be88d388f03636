"""How much of a training step's time is arithmetic.

`python benchmarks/training.py` times steps of the readers' recipe on invented worlds, counts the
multiplications their matrices take, and sets both beside this machine's own matrix product in the
precision that it trains in: tokens a second, and the share of that peak. `bfloat16` or `float32`
after the command chooses another one than `auto` does.
"""

from __future__ import annotations

import random
import sys
import time

import torch

from ragbook.models.bundled import new_reader_model
from ragbook.models.devices import least_precise, name_of
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.span import SpanScorer
from ragbook.training.loop import MasterAdamW
from ragbook.training.reader import worlds
from ragbook.training.reader.curriculum import vocabulary_words
from ragbook.training.reader.train import collate, losses, quicken_and_freeze, set_dropout

STEPS, BATCH = 20, 64


def peak(dtype: torch.dtype, size: int = 2048, repeats: int = 10) -> float:
    """Floating-point operations a second of a square matrix product in that format."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    a @ b
    began = time.perf_counter()
    for _ in range(repeats):
        a @ b
    return 2 * size**3 * repeats / (time.perf_counter() - began)


def main(precision: str = "auto") -> None:
    """Print tokens a second and the share of the peak."""
    torch.manual_seed(0)
    tokenizer = minilm_tokenizer()
    model, scorer = new_reader_model(), SpanScorer(384)
    quicken_and_freeze(model, scorer, precision=precision)
    dtype = least_precise(model.parameters())
    set_dropout(model, 0.0)
    optimizer = MasterAdamW([(list(model.parameters()), 1e-4), (list(scorer.parameters()), 1e-4)])
    words, rng = vocabulary_words(tokenizer), random.Random(0)
    tokens = operations = 0.0
    seconds = 0.0
    wide = tokenizer.vocab_size * 384  # weights of the output layer over the vocabulary
    layers = [p for n, p in model.encoder.named_parameters() if "layer." in n and p.dim() == 2]
    trained = sum(p.numel() for p in layers if p.requires_grad)
    passed = sum(p.numel() for p in layers)
    own = {n: p for n, p in model.decoder.named_parameters() if "layer." in n and p.dim() == 2}
    reads = ("crossattention.self.key.weight", "crossattention.self.value.weight")
    across = sum(p.numel() for n, p in own.items() if n.endswith(reads))  # of the encoder's states
    decoder = sum(p.numel() for p in own.values()) - across
    for step in range(-2, STEPS):
        batch = collate(
            tokenizer, [worlds.example(rng, 1, (1, 2), 0.1, words) for _ in range(BATCH)], 10
        )
        began = time.perf_counter()
        loss, _ = losses(model, scorer, batch)
        loss.backward()
        optimizer.step(1.0)
        if step < 0:  # the first steps allocate
            continue
        seconds += time.perf_counter() - began
        read, written = batch.inputs["input_ids"].numel(), batch.labels.numel()
        tokens += read + written
        # Two operations for each weight and token forward, and four more backward if the weight is
        # trained (two for the frozen output layer, which only needs the gradient of its inputs).
        operations += read * (2 * passed + 4 * trained + 6 * across)
        operations += written * (6 * decoder + 4 * wide)
    best = peak(dtype)
    print(f"{name_of(dtype)} matrix product  {best / 1e9:8.0f} GFLOP/s")
    print(f"training                 {operations / seconds / 1e9:8.0f} GFLOP/s, ", end="")
    print(f"{100 * operations / seconds / best:.0f} % of it")
    print(f"                         {tokens / seconds:8.0f} tokens/s, ", end="")
    print(f"{seconds / STEPS:.2f} s a step of {tokens / STEPS:.0f} tokens (padding included)")


if __name__ == "__main__":
    main(*sys.argv[1:])
