"""kNN-LM compared with a straightforward implementation, in one run, and the datastore's build.

`python benchmarks/knn_lm.py` makes three comparisons on MiniWiki with the bundled language model:

* the build of a datastore, in tokens a second, with the model's bare forward pass over the same
  batches, also without the output layer;
* the perplexity of held-out articles with the datastore of all passages, k = 1,024. The
  straightforward implementation takes the tokens in batches: it searches each batch in Faiss's
  exact index, scatters the neighbours' weights over the whole vocabulary, and interpolates there.
  Both sides are given the model's distributions;
* a grid of 10 lambdas and 10 temperatures on a few of the tokens, where the straightforward
  implementation searches again for each cell, or keeps the neighbours.

`python benchmarks/knn_lm.py KEYS` compares searches among so many drawn keys, float16 [KEYS, 384]
on the disk, k = 1,024: the exact search, the approximate one, and the latter with its distances
computed again from the keys; how long the approximate index takes to make, and Faiss alone on
keys that are float32 already; and the distances computed again as numpy alone would.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import torch
from rounds import heading, in_turn, show
from torch import Tensor

from ragbook.corpus import Corpus, miniwiki
from ragbook.evaluation.perplexity import look_up
from ragbook.evaluation.windows import Contexts, contexts_of, windows
from ragbook.index import neighbours
from ragbook.index.datastore import Datastore, build_datastore
from ragbook.index.factories import inverted_lists, make_index, training_size
from ragbook.methods.knn_lm import grid, interpolate, knn_target_log_prob
from ragbook.models import LanguageModel, load_language_model

K, LAM, TEMPERATURE = 1024, 0.3, 10.0
ARTICLES, BATCH, CELL_TOKENS, BUILD_PASSAGES = 20, 256, 128, 600
KS = (1, 8, 64, K)
SEARCHED, DIMENSION, CODE, ROUNDS = 64, 384, 64, 5
LAMS = tuple(np.linspace(0.05, 0.95, 10).tolist())
TEMPERATURES = tuple(np.geomspace(1, 1000, 10).tolist())


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result of one call."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


class Straightforward:
    """kNN-LM as it is usually written: with a distribution over the whole vocabulary."""

    def __init__(self, datastore: Datastore) -> None:
        self.keys = faiss.IndexFlatL2(datastore.keys.shape[1])
        self.keys.add(np.asarray(datastore.keys, dtype=np.float32))
        self.values = torch.from_numpy(np.asarray(datastore.values, dtype=np.int64))

    def search(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distances [n, K] and next tokens [n, K]."""
        distances, rows = self.keys.search(queries.numpy(), K)
        return torch.from_numpy(distances), self.values[torch.from_numpy(rows)]

    @staticmethod
    def mix(
        distances: Tensor, values: Tensor, log_probs: Tensor, lam: float, temperature: float
    ) -> Tensor:
        """log p of every token of the vocabulary, [n, V]."""
        weights = torch.softmax(-distances / temperature, -1)
        knn = torch.zeros_like(log_probs).scatter_add_(1, values, weights).log()
        both = torch.stack([math.log(1 - lam) + log_probs, math.log(lam) + knn])
        return both.logsumexp(0)

    def log_probs(
        self, queries: Tensor, log_probs: Tensor, targets: Tensor, lam: float, temperature: float
    ) -> Tensor:
        """log p of the targets [n], search included."""
        mixed = self.mix(*self.search(queries), log_probs, lam, temperature)
        return mixed.gather(1, targets[:, None])[:, 0]


def distributions(lm: LanguageModel, documents: list[str]) -> Tensor:
    """log p_LM of the whole vocabulary for every token of the documents, float32 [N, V]."""
    parts = []
    for document in documents:
        for window in windows(lm, document):
            scored = len(window.ids) - window.scored
            parts.append(lm.forward(torch.tensor([window.ids]), last=scored + 1)[1][0, :-1])
    return torch.cat(parts)


def perplexity(log_probs: Tensor) -> float:
    """exp of minus the mean."""
    return math.exp(-float(log_probs.double().mean()))


def evaluation(datastore: Datastore, contexts: list[Contexts], dense: Tensor) -> None:
    """Compare the evaluation with one lambda and temperature; the time includes the search and not
    the model's forward pass."""
    queries, targets, base = (
        torch.cat([getattr(one, name) for one in contexts])
        for name in ("queries", "targets", "base")
    )
    peer = Straightforward(datastore)

    def theirs() -> Tensor:
        parts = zip(queries.split(BATCH), dense.split(BATCH), targets.split(BATCH), strict=True)
        return torch.cat([peer.log_probs(q, p, y, LAM, TEMPERATURE) for q, p, y in parts])

    def ours() -> Tensor:
        parts = look_up(contexts, datastore, K)
        knn = torch.cat([knn_target_log_prob(d, h, TEMPERATURE) for d, h, _ in parts])
        return interpolate(base, knn, LAM)

    peer.search(queries[:BATCH])  # one run before the time is measured
    datastore.search(queries[:BATCH].numpy(), K)
    seconds, mixed = timed(ours)
    search = timed(lambda: datastore.search(queries.numpy(), K))[0]
    peer_seconds, peer_mixed = timed(theirs)
    peer_search = timed(lambda: [peer.search(part) for part in queries.split(BATCH)])[0]
    a, b = perplexity(peer_mixed), perplexity(mixed)
    print(f"evaluation of {len(base):,} tokens, {len(datastore):,} pairs, k = {K:,}")
    print(f"  straightforward  {peer_seconds:7.2f} s, {peer_search:.2f} s of it search")
    print(f"  ragbook          {seconds:7.2f} s, {search:.2f} s of it search")
    print(f"  {peer_seconds / seconds:.1f} times as fast; perplexity {b:.6f}, {abs(a - b):.1e} off")
    the_grid(datastore, peer, contexts, dense)


def the_grid(
    datastore: Datastore, peer: Straightforward, contexts: list[Contexts], dense: Tensor
) -> None:
    """Compare the grid of all lambdas and temperatures, on a few tokens and then on all."""
    whole = contexts[0]
    cut = {field.name: getattr(whole, field.name)[:CELL_TOKENS] for field in fields(whole)}
    few = [Contexts(**cut)]
    queries, targets, base = few[0].queries, few[0].targets, few[0].base
    log_probs = dense[: len(base)]

    def theirs(kept: tuple[Tensor, Tensor] | None) -> Tensor:
        cells = [
            peer.mix(*(kept or peer.search(queries)), log_probs, lam, temperature)
            .gather(1, targets[:, None]).double().mean()
            for temperature in TEMPERATURES
            for lam in LAMS
        ]  # fmt: skip
        return torch.stack(cells).reshape(len(TEMPERATURES), len(LAMS))

    def ours(contexts: list[Contexts]) -> Tensor:
        parts = look_up(contexts, datastore, K)
        return cached(contexts, parts)

    def cached(contexts: list[Contexts], parts: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        base = torch.cat([one.base for one in contexts])
        distances, hits, _ = zip(*parts, strict=True)
        return grid(base, distances, hits, LAMS, TEMPERATURES, (K,))[0]

    seconds, means = timed(lambda: ours(few))
    peer_seconds, peer_means = timed(lambda: theirs(None))
    kept = peer.search(queries)
    parts = look_up(few, datastore, K)
    kept_seconds = timed(lambda: cached(few, parts))[0]
    peer_kept_seconds = timed(lambda: theirs(kept))[0]
    apart = (means - peer_means).expm1().abs().max()
    print(f"{len(LAMS)} x {len(TEMPERATURES)} grid of {len(base)} tokens")
    print(
        f"  straightforward  {peer_seconds:7.2f} s, or {peer_kept_seconds:.2f} s on kept neighbours"
    )
    print(f"  ragbook          {seconds:7.2f} s, of which on kept neighbours {kept_seconds:.3f} s")
    print(
        f"  {peer_seconds / seconds:.0f} times as fast, "
        f"{peer_kept_seconds / kept_seconds:.0f} times on kept neighbours; "
        f"perplexities at most {apart:.1e} of each other apart"
    )
    parts = look_up(contexts, datastore, K)
    base = torch.cat([one.base for one in contexts])
    distances, hits, _ = zip(*parts, strict=True)
    every = timed(lambda: grid(base, distances, hits, LAMS, TEMPERATURES, KS))[0]
    print(f"  {every:.2f} s on all {len(base):,} tokens, for each of {len(KS)} k as well")


def building(lm: LanguageModel, corpus: Corpus, folder: Path) -> None:
    """Compare the tokens a second of a whole build, from tokenizer to hashes, and of the model."""
    some = Corpus("some", corpus[:BUILD_PASSAGES])
    texts = [ids[:-1] for ids in lm.texts(some)]
    tokens, batches = sum(map(len, texts)), []
    hook = lm.model.base_model.register_forward_pre_hook(
        lambda _m, _a, named: batches.append(named["input_ids"]), with_kwargs=True
    )
    lm.keys(texts)  # one run before the time is measured, to record the batches
    hook.remove()

    def bare() -> None:
        with torch.no_grad():
            for ids in batches:
                lm.model.base_model(input_ids=ids, use_cache=False)

    rates: dict[str, list[float]] = {"bare forward pass": [], "build": []}
    for turn in range(3):
        rates["bare forward pass"].append(tokens / timed(bare)[0])
        out = folder / str(turn)
        rates["build"].append(tokens / timed(lambda o=out: build_datastore(some, o, lm, False))[0])
    print(f"datastore of {len(some)} passages, {tokens:,} tokens, best of 3")
    for name, found in rates.items():
        print(f"  {name:<18} {max(found):8,.0f} tokens/s")
    print(f"  {max(rates['build']) / max(rates['bare forward pass']):.0%} of the bare forward pass")


def drawn(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys in 1,000 clusters, float16 in a file that is mapped, and queries, float32."""
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((1000, DIMENSION), np.float32)
    keys = np.lib.format.open_memmap(path, "w+", np.float16, (count, DIMENSION))
    for first in range(0, count, 65_536):
        part = keys[first : first + 65_536]
        part[:] = middles[rng.integers(0, 1000, len(part))]
        part[:] += rng.standard_normal(part.shape, np.float32) / 2
    keys.flush()
    queries = middles[rng.integers(0, 1000, SEARCHED)]
    queries += rng.standard_normal(queries.shape, np.float32) / 2
    return np.load(path, mmap_mode="r"), queries


def by_numpy(keys: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The exact distances of the rows, each row of them ascending."""
    distances = np.empty(rows.shape, np.float32)
    for number, (query, own) in enumerate(zip(queries, rows, strict=True)):
        apart = np.asarray(keys[own], dtype=np.float32) - query
        distances[number] = np.einsum("ij,ij->i", apart, apart)
    return np.sort(distances, axis=1)


def searching(count: int, folder: Path) -> None:
    """Compare the searches among `count` keys, and the making of their index."""
    keys, queries = drawn(folder / "keys.npy", count)
    floats = np.asarray(keys, dtype=np.float32)
    index = make_index(f"IVF{inverted_lists(count)},PQ{CODE}", DIMENSION, "l2", count)
    size, began = training_size(index, count), time.process_time()
    rows = np.random.default_rng(0).choice(count, size, replace=False)
    index.train(floats[np.sort(rows)])
    index.add(floats)
    alone, began = time.process_time() - began, time.process_time()
    trained = neighbours.train_ivfpq(keys)
    ours = time.process_time() - began
    print(f"the index of {count:,} keys: {ours:.1f} s of CPU, Faiss alone {alone:.1f} s")
    found = neighbours.approximate(trained, queries, K)[1]
    assert np.array_equal(found, neighbours.approximate(index, queries, K)[1])

    def approximately(again: bool) -> np.ndarray:
        rows = neighbours.approximate(trained, queries, K)[1]
        return neighbours.recomputed(keys, queries, rows)[1] if again else rows

    exact = neighbours.exact(keys, queries, K)[1]
    sides = {
        "exact": lambda: neighbours.exact(keys, queries, K),
        "approximate": lambda: approximately(False),
        "approximate, computed again": lambda: approximately(True),
    }
    heading(f"{SEARCHED} queries among {count:,} keys, k = {K:,}", "exact")
    show(in_turn(sides, ROUNDS), "exact", 1000 / SEARCHED, "ms a query")
    print(f"  {neighbours.recall(found, exact):.1%} of the neighbours found")
    assert np.array_equal(
        by_numpy(keys, queries, found), neighbours.recomputed(keys, queries, found)[0]
    )
    again = {
        "numpy alone": lambda: by_numpy(keys, queries, found),
        "ragbook": lambda: neighbours.recomputed(keys, queries, found),
    }
    heading("distances computed again", "numpy alone")
    show(in_turn(again, ROUNDS), "numpy alone", 1000 / SEARCHED, "ms a query")


def main() -> None:
    """Print the three comparisons."""
    lm, corpus = load_language_model(), miniwiki.corpus()
    articles = miniwiki.heldout("test")[:ARTICLES]
    documents = ["\n".join(p.text for p in article.passages) for article in articles]
    with TemporaryDirectory() as folder:
        building(lm, corpus, Path(folder))
        datastore = build_datastore(corpus, Path(folder) / "whole", lm, progress=False)
        seconds, contexts = timed(lambda: contexts_of(documents, lm, progress=False))
        print(f"the model's own pass over the {ARTICLES} articles: {seconds:.2f} s")
        evaluation(datastore, contexts, distributions(lm, documents))


if __name__ == "__main__":
    if sys.argv[1:]:
        with TemporaryDirectory() as place:
            searching(int(sys.argv[1]), Path(place))
    else:
        main()
