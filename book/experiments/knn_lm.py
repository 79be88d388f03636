"""The effect of a memory on a language model's perplexity on held-out articles, with ablations.

`python -m book.experiments.knn_lm book/results/language.json` tunes lambda and temperature on
MiniWiki's dev articles and fits the adaptive lambda to them, then measures the test articles once:
perplexities, their relative differences to the base model with intervals over the articles,
memories of other sizes, contexts that are whole articles, and the cost of an approximate search. It
takes about five minutes on two cores. For your own text see `experiments.knn_lm_real_text`.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragbook.corpus import Corpus, Passage, miniwiki
from ragbook.evaluation.perplexity import (
    Contexts,
    Neighbours,
    Search,
    approximation,
    contexts_of,
    look_up,
    prompted,
)
from ragbook.index import neighbours
from ragbook.index.datastore import Datastore, add_approximate, build_datastore
from ragbook.methods.knn_lm import (
    LAMS,
    TEMPERATURES,
    adaptive,
    grid,
    interpolate,
    knn_target_log_prob,
    tune,
)
from ragbook.models import LanguageModel, load_language_model

from .report import write_sections

RESAMPLES, K = 10_000, 1024

KS = (1, 4, 16, 64, 256, 1024)
SHARES = (1 / 64, 1 / 16, 1 / 4, 1.0)
"""The numbers of neighbours, and the shares of the memory, whose perplexities are compared."""

STORES = Path("build/datastores")


@dataclass(frozen=True)
class Settings:
    """The settings of the interpolation that were tuned on held-out dev articles."""

    lam: float
    temperature: float
    weigh: adaptive.AdaptiveLambda
    dev: dict[
        str, float
    ]  # perplexities on dev; with the adaptive weight, cross-fitted

    def described(self) -> dict[str, Any]:
        """The settings as JSON, with the weights of the adaptive lambda's regression by feature."""
        weights = zip(
            adaptive.FEATURES, self.weigh.weights.round(3).tolist(), strict=True
        )
        return {
            "lam": self.lam,
            "temperature": self.temperature,
            "weights": dict(weights),
            "dev": self.dev,
        }


def knn(found: Sequence[Neighbours], temperature: float) -> list[Tensor]:
    """log p_kNN of every token: for each document a tensor [N], nats."""
    return [
        knn_target_log_prob(distances, hits, temperature)
        for distances, hits, _ in found
    ]


def perplexity_of(log_probs: Sequence[Tensor]) -> float:
    """exp of minus the mean log p of a token, over the tokens of all documents."""
    return math.exp(-float(torch.cat(list(log_probs)).double().mean()))


def settle(base: Sequence[Tensor], found: Sequence[Neighbours]) -> Settings:
    """Tune lambda and temperature on their grid, and fit the adaptive lambda at that temperature.

    Parameters
    ----------
    base: log p_LM of every token of every dev document.
    found: their neighbours, as `look_up` gives them.
    """
    distances, hits, features = zip(*found, strict=True)
    lam, temperature, _ = tune(torch.cat(list(base)), distances, hits)
    neighbours = knn(found, temperature)
    weights = adaptive.cross_fitted(features, base, neighbours)
    perplexities = {
        "base": perplexity_of(base),
        "knn-lm": perplexity_of(mixed(base, neighbours, [lam] * len(base))),
        "adaptive": perplexity_of(mixed(base, neighbours, weights)),
    }
    weigh = adaptive.fit(
        torch.cat(features), torch.cat(list(base)), torch.cat(neighbours)
    )
    return Settings(lam, temperature, weigh, perplexities)


def mixed(
    base: Sequence[Tensor],
    neighbours: Sequence[Tensor],
    weights: Sequence[float | Tensor],
) -> list[Tensor]:
    """log p of kNN-LM of every token, with each document's weight or weights."""
    return [
        interpolate(b, n, w)
        for b, n, w in zip(base, neighbours, weights, strict=True)
    ]


def relative_difference(
    log_probs: Sequence[Tensor], base: Sequence[Tensor], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The perplexity's relative difference to the base's, and its 95 % interval.

    Whole articles are resampled, and each resample's perplexities are computed over its tokens.

    Returns
    -------
    (difference, (low, high)); -0.1 means that the perplexity is 10 % lower.
    """
    tokens = np.array([len(one) for one in base])
    gains = np.array(
        [
            float((a.double() - b.double()).sum())
            for a, b in zip(log_probs, base, strict=True)
        ]
    )
    drawn = np.random.default_rng(seed).integers(
        0, len(tokens), (RESAMPLES, len(tokens))
    )
    resampled = np.exp(-gains[drawn].sum(1) / tokens[drawn].sum(1)) - 1
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(np.exp(-gains.sum() / tokens.sum()) - 1), (
        float(low),
        float(high),
    )


def perplexities(
    base: Sequence[Tensor],
    found: Sequence[Neighbours],
    settings: Settings,
    in_context: Sequence[Tensor] | None = None,
) -> dict[str, dict[str, Any]]:
    """Perplexity of each way to use the memory, and its relative difference to the base model with
    an interval; for the adaptive weight also the difference to the fixed weight.

    Parameters
    ----------
    base, found: as in `settle`, of the test documents.
    in_context: log p of their tokens with a retrieved passage in the prompt, if it was measured.
    """
    neighbours = knn(found, settings.temperature)
    ways: dict[str, Sequence[Tensor]] = {
        "base": base,
        "knn-lm": mixed(base, neighbours, [settings.lam] * len(base)),
        "adaptive": mixed(
            base, neighbours, [settings.weigh(f) for _, _, f in found]
        ),
    }
    if in_context is not None:
        ways["in-context"] = in_context
    out: dict[str, dict[str, Any]] = {}
    for name, log_probs in ways.items():
        difference, ci95 = relative_difference(log_probs, base)
        out[name] = {
            "perplexity": perplexity_of(log_probs),
            "difference": difference,
            "ci95": ci95,
            "tokens": sum(map(len, base)),
            "articles": len(base),
        }
    out["adaptive"]["from_knn_lm"] = relative_difference(
        ways["adaptive"], ways["knn-lm"]
    )
    return out


def base_of(contexts: Sequence[Contexts]) -> list[Tensor]:
    """log p_LM of every token: for each document a tensor [N], nats."""
    return [one.base for one in contexts]


def first_pairs(datastore: Datastore, passages: int) -> Search:
    """Exact search among the pairs of the first passages only, as if the memory held no others."""
    keys = datastore.keys[: datastore.offsets[passages]]
    return lambda queries, k: neighbours.exact(keys, queries, k)


def surface(
    base: Sequence[Tensor], found: Sequence[Neighbours]
) -> dict[str, Any]:
    """Perplexity for every lambda and temperature, and the lowest for each number of neighbours.

    Parameters
    ----------
    base, found: as in `settle`.
    """
    distances, hits, _ = zip(*found, strict=True)
    most = distances[0].shape[1]
    ks = [*(k for k in KS if k < most), most]
    perplexities = (
        grid(torch.cat(list(base)), distances, hits, LAMS, TEMPERATURES, ks)
        .neg()
        .exp()
    )
    return {
        "lams": LAMS,
        "temperatures": TEMPERATURES,
        "perplexity": perplexities[-1].tolist(),
        "ks": dict(
            zip(map(str, ks), perplexities.amin((1, 2)).tolist(), strict=True)
        ),
    }


def growth(
    datastore: Datastore, dev: Sequence[Contexts], test: Sequence[Contexts]
) -> list[dict[str, Any]]:
    """Memories of SHARES of the passages, with lambda and temperature tuned on dev for each.

    Returns
    -------
    [{"pairs", "lam", "temperature", "perplexity", "difference" to the base model's, "ci95"}] on
    test, smallest first.
    """
    base, out = base_of(test), []
    for share in SHARES:
        passages = max(1, round(share * len(datastore.passages)))
        search = first_pairs(datastore, passages)
        distances, hits, _ = zip(
            *look_up(dev, datastore, K, search), strict=True
        )
        lam, temperature, _ = tune(torch.cat(base_of(dev)), distances, hits)
        found = knn(look_up(test, datastore, K, search), temperature)
        log_probs = mixed(base, found, [lam] * len(base))
        difference, ci95 = relative_difference(log_probs, base)
        out.append(
            {
                "pairs": int(datastore.offsets[passages]),
                "lam": lam,
                "temperature": temperature,
                "perplexity": perplexity_of(log_probs),
                "difference": difference,
                "ci95": ci95,
            }
        )
    return out


def shuffled(corpus: Corpus, seed: int = 0) -> Corpus:
    """The passages in random order, so that the first n are a random sample."""
    passages = list(corpus)
    random.Random(seed).shuffle(passages)
    return Corpus(corpus.name, passages)


def whole_articles(corpus: Corpus) -> Corpus:
    """One passage for each run of passages with the same title, so that the passages before it in
    the article are part of a key's context."""
    runs = [
        list(run)
        for _, run in itertools.groupby(
            corpus, key=lambda passage: passage.title
        )
    ]
    return Corpus(
        f"{corpus.name}-articles",
        [
            Passage(run[0].id, run[0].title, " ".join(p.text for p in run))
            for run in runs
        ],
    )


def report(
    path: Path,
    corpus: Corpus,
    dev: Sequence[str],
    test: Sequence[str],
    lm: LanguageModel,
    stores: Path = STORES,
    probes: Sequence[int] = (4, neighbours.PROBES),
) -> None:
    """Tune on dev and measure on test; every document is one text.

    Parameters
    ----------
    path: the JSON file; sections that it already holds are not measured again.
    corpus: the passages of the memory and of the prompts.
    stores: folder of the datastores, which a later run reuses after a kill.
    """
    datastore = build_datastore(shuffled(corpus), stores / corpus.name, lm)
    dev_contexts, contexts = contexts_of(dev, lm), contexts_of(test, lm)
    dev_base, base = base_of(dev_contexts), base_of(contexts)
    dev_found = look_up(dev_contexts, datastore, K)
    settings = settle(dev_base, dev_found)

    def settled() -> dict[str, Any]:
        return {
            "k": K,
            "pairs": len(datastore),
            "bytes": sum(
                file["bytes"] for file in datastore.manifest["files"].values()
            ),
            "dev_articles": len(dev),
            "dev_tokens": sum(map(len, dev_base)),
            **settings.described(),
        }

    def tested() -> dict[str, Any]:
        found = look_up(contexts, datastore, K)
        return perplexities(base, found, settings, prompted(test, corpus, lm))

    def articles() -> dict[str, Any]:
        """With the same settings; the difference is to the memory of passages."""
        whole = whole_articles(corpus)
        store = build_datastore(whole, stores / whole.name, lm)
        ways = [
            mixed(
                base,
                knn(look_up(contexts, one, K), settings.temperature),
                [settings.lam] * len(base),
            )
            for one in (store, datastore)
        ]
        difference, ci95 = relative_difference(ways[0], ways[1])
        return {
            "perplexity": perplexity_of(ways[0]),
            "difference": difference,
            "ci95": ci95,
        }

    def searched() -> dict[str, Any] | None:
        if len(datastore) < neighbours.FEWEST:
            return None
        store = add_approximate(datastore)
        return approximation(
            contexts, store, settings.lam, settings.temperature, K, probes
        )

    write_sections(
        path,
        {
            "settings": settled,
            "surface": lambda: surface(dev_base, dev_found),
            "test": tested,
            "growth": lambda: growth(datastore, dev_contexts, contexts),
            "whole articles": articles,
            "approximate search": searched,
        },
    )


def heldout_texts(split: str) -> list[str]:
    """MiniWiki's held-out articles of "dev" or "test", each as one text."""
    return [
        "\n".join(p.text for p in article.passages)
        for article in miniwiki.heldout(split)
    ]


def main(out: str) -> None:
    """Measure everything that `out` does not hold yet."""
    dev, test = map(heldout_texts, ("dev", "test"))
    report(Path(out), miniwiki.corpus(), dev, test, load_language_model())


if __name__ == "__main__":
    main(*sys.argv[1:])
