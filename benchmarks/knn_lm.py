"""kNN-LM compared with a straightforward implementation, in one run, and the datastore's build.

`python benchmarks/knn_lm.py` makes three comparisons on MiniWiki with the bundled language model:

* the build of a datastore, with the model's bare forward pass over the same batches, also without
  the output layer;
* the perplexity of held-out articles with the datastore of all passages, k = 1,024. The
  straightforward implementation takes the tokens in batches: it searches each batch in Faiss's
  exact index, scatters the neighbours' weights over the whole vocabulary, and interpolates there.
  Both sides are given the model's distributions. The search is also measured alone;
* a grid of 10 lambdas and 10 temperatures on a few of the tokens, where the straightforward
  implementation searches again for each cell, or keeps the neighbours.

`python benchmarks/knn_lm.py KEYS` compares searches among so many drawn keys, float16 [KEYS, 384]
on the disk, k = 1,024: the exact search, the approximate one, and the latter with its distances
computed again from the keys; how long the approximate index takes to make, and Faiss alone on
keys that are float32 already; and the distances computed again as numpy alone would.

`--store FILE` keeps the comparisons with other implementations as sections `knn-lm-...`.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
import torch
from rounds import Difference, compare, keep, options
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
LIBRARIES = ("faiss-cpu", "torch")  # of the straightforward implementation
SEARCHED, DIMENSION, CODE = 64, 384, 64
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


def evaluation(
    datastore: Datastore, contexts: list[Contexts], dense: Tensor, store: Path | None
) -> None:
    """Compare the evaluation with one lambda and temperature; the time includes the search and not
    the model's forward pass."""
    queries, targets, base = (
        torch.cat([getattr(one, name) for one in contexts])
        for name in ("queries", "targets", "base")
    )
    peer, results = Straightforward(datastore), {}

    def theirs() -> None:
        parts = zip(queries.split(BATCH), dense.split(BATCH), targets.split(BATCH), strict=True)
        mixed = torch.cat([peer.log_probs(q, p, y, LAM, TEMPERATURE) for q, p, y in parts])
        results["peer"] = perplexity(mixed)

    def ours() -> None:
        parts = look_up(contexts, datastore, K)
        knn = torch.cat([knn_target_log_prob(d, h, TEMPERATURE) for d, h, _ in parts])
        results["own"] = perplexity(interpolate(base, knn, LAM))

    def apart() -> Difference:
        gap = abs(results["own"] / results["peer"] - 1)
        return "relative difference of the perplexities", gap, 1e-4

    def their_search() -> None:
        found = [peer.search(part)[0] for part in queries.split(BATCH)]
        results["peer"] = torch.cat(found).numpy()

    def our_search() -> None:
        results["own"] = datastore.search(queries.numpy(), K)[0]

    def distances_apart() -> Difference:
        exact, own = results["peer"], results["own"]
        gap = (np.abs(own - exact) / np.maximum(exact, 1)).max()
        return "greatest relative difference of the distances", gap, 1e-3

    what = f"{len(base):,} tokens, {len(datastore):,} pairs, k = {K:,}"
    for name, said, their_side, our_side, difference in (
        ("evaluation", f"perplexity of {what}", theirs, ours, apart),
        ("search", f"search for {what}", their_search, our_search, distances_apart),
    ):
        sides = {"straightforward code": their_side, "ragbook": our_side}
        keep(store, f"knn-lm-{name}", compare(said, sides, LIBRARIES, difference))
    the_grid(datastore, peer, contexts, dense, store)


def the_grid(
    datastore: Datastore,
    peer: Straightforward,
    contexts: list[Contexts],
    dense: Tensor,
    store: Path | None,
) -> None:
    """Compare the grid of all lambdas and temperatures, on a few tokens and then on all."""
    whole = contexts[0]
    cut = {field.name: getattr(whole, field.name)[:CELL_TOKENS] for field in fields(whole)}
    few = [Contexts(**cut)]
    queries, targets, base = few[0].queries, few[0].targets, few[0].base
    log_probs, results = dense[: len(base)], {}

    def theirs(kept: tuple[Tensor, Tensor] | None) -> None:
        cells = [
            peer.mix(*(kept or peer.search(queries)), log_probs, lam, temperature)
            .gather(1, targets[:, None]).double().mean()
            for temperature in TEMPERATURES
            for lam in LAMS
        ]  # fmt: skip
        results["peer"] = torch.stack(cells).reshape(len(TEMPERATURES), len(LAMS))

    def ours(kept: list[tuple[Tensor, Tensor, Tensor]] | None) -> None:
        distances, hits, _ = zip(*(kept or look_up(few, datastore, K)), strict=True)
        results["own"] = grid(base, distances, hits, LAMS, TEMPERATURES, (K,))[0]

    def apart() -> Difference:
        gap = (results["own"] - results["peer"]).expm1().abs().max().item()
        return "greatest relative difference of the perplexities", gap, 1e-4

    their_kept, our_kept = peer.search(queries), look_up(few, datastore, K)
    what = f"{len(LAMS)} x {len(TEMPERATURES)} grid of {len(base)} tokens"
    for name, said, their_side, our_side in (
        ("grid", what, lambda: theirs(None), lambda: ours(None)),
        (
            "kept-grid",
            f"{what} on kept neighbours",
            lambda: theirs(their_kept),
            lambda: ours(our_kept),
        ),
    ):
        sides = {"straightforward code": their_side, "ragbook": our_side}
        keep(store, f"knn-lm-{name}", compare(said, sides, LIBRARIES, apart))
    parts = look_up(contexts, datastore, K)
    base = torch.cat([one.base for one in contexts])
    distances, hits, _ = zip(*parts, strict=True)
    every = timed(lambda: grid(base, distances, hits, LAMS, TEMPERATURES, KS))[0]
    print(f"the grid on all {len(base):,} tokens, for each of {len(KS)} k: {every:.2f} s")


def building(lm: LanguageModel, corpus: Corpus, folder: Path, store: Path | None) -> None:
    """Compare a whole build, from tokenizer to hashes, with the model alone."""
    some = Corpus("some", corpus[:BUILD_PASSAGES])
    texts = [ids[:-1] for ids in lm.texts(some)]
    tokens, batches = sum(map(len, texts)), []
    hook = lm.model.base_model.register_forward_pre_hook(
        lambda _m, _a, named: batches.append(named["input_ids"]), with_kwargs=True
    )
    lm.keys(texts)  # records the batches
    hook.remove()

    def bare() -> None:
        with torch.no_grad():
            for ids in batches:
                lm.model.base_model(input_ids=ids, use_cache=False)

    number = itertools.count()
    sides = {
        "the bare forward pass": bare,
        "ragbook": lambda: build_datastore(some, folder / str(next(number)), lm, False),
    }
    what = f"datastore of {len(some)} passages, {tokens:,} tokens"
    keep(store, "knn-lm-build", compare(what, sides, ["transformers"]))


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


def searching(count: int, folder: Path, store: Path | None) -> None:
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
    what = f"{SEARCHED} queries among {count:,} keys, k = {K:,}"
    compare(what, sides)
    print(f"  {neighbours.recall(found, exact):.1%} of the neighbours found")

    def apart() -> Difference:
        by_us = neighbours.recomputed(keys, queries, found)[0]
        gap = np.abs(by_numpy(keys, queries, found) - by_us).max()
        return "greatest difference of the distances", gap, 0

    again = {
        "numpy alone": lambda: by_numpy(keys, queries, found),
        "ragbook": lambda: neighbours.recomputed(keys, queries, found),
    }
    what = f"distances computed again for {what}"
    keep(store, "knn-lm-distances", compare(what, again, ["numpy"], apart))


def main(store: Path | None) -> None:
    """Print the three comparisons."""
    lm, corpus = load_language_model(), miniwiki.corpus()
    articles = miniwiki.heldout("test")[:ARTICLES]
    documents = ["\n".join(p.text for p in article.passages) for article in articles]
    with TemporaryDirectory() as folder:
        building(lm, corpus, Path(folder), store)
        datastore = build_datastore(corpus, Path(folder) / "whole", lm, progress=False)
        seconds, contexts = timed(lambda: contexts_of(documents, lm, progress=False))
        print(f"the model's own pass over the {ARTICLES} articles: {seconds:.2f} s")
        evaluation(datastore, contexts, distributions(lm, documents), store)


if __name__ == "__main__":
    kept, arguments = options()
    if arguments:
        with TemporaryDirectory() as place:
            searching(int(arguments[0]), Path(place), kept)
    else:
        main(kept)
