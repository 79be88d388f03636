"""How much of a causal model's reading is matrix products: `python benchmarks/reading.py [MODEL]`.

Passages of MiniWiki are read by the model, as every method shows them to it, and in turn only the
products of its linear layers are computed, on as many tokens, with the same weights. MODEL is a
reader's name or folder, `smollm2` by default. With `--store FILE` the record is kept for the book.
"""

from __future__ import annotations

from pathlib import Path

import torch
from rounds import compare, keep, options
from torch import nn
from torch.nn.functional import linear

from ragbook.corpus import miniwiki
from ragbook.models import CausalReader, load_reader
from ragbook.models.causal_states import batches

PASSAGES = 16


def main(name: str, store: Path | None) -> None:
    """Measure both and print the record."""
    reader = load_reader(name)
    assert isinstance(reader, CausalReader)
    pieces = [reader.prompt.passage(passage) for passage in list(miniwiki.corpus())[:PASSAGES]]
    layers = [
        module.weight
        for module in reader.model.base_model.modules()
        if isinstance(module, nn.Linear)
    ]
    shapes = [
        (len(rows), max(len(pieces[row]) for row in rows))
        for rows in batches(pieces, reader.device)
    ]
    given = {
        (size, weight.shape[1]): torch.randn(*size, weight.shape[1])
        for size in shapes
        for weight in layers
    }

    @torch.no_grad()
    def products() -> None:
        for size in shapes:
            for weight in layers:
                linear(given[size, weight.shape[1]], weight)

    def ours() -> None:
        reader.forget()
        reader.kept.alone(pieces)

    tokens = sum(map(len, pieces))
    measured = compare(
        f"{name}: {PASSAGES} passages of {tokens:,} tokens are read",
        {"its matrix products alone": products, "ragbook": ours},
    )
    seconds = measured["sides"]["ragbook"]["wall_seconds"]["median"]
    print(f"  {tokens / seconds:.0f} tokens a second")
    keep(store, "reading", measured)


if __name__ == "__main__":
    kept, others = options()
    main(others[0] if others else "smollm2", kept)
