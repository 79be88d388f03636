"""kNN-LM on held-out articles: one weight of the memory for all contexts, and one for each.

`python -m ragbook.evaluation.language` tunes lambda and temperature on MiniWiki's dev articles and
fits the adaptive lambda to them, then measures the test articles once: perplexities, the relative
difference of each to the base model with its interval over the articles, and what an approximate
search costs. `python -m ragbook.evaluation.language FILE` does the same on articles in WikiText's
form: the last sixth is the test, with all others as the memory; before that the sixth before it is
dev, with those before it as the memory.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragbook.corpus import Corpus, Passage, miniwiki
from ragbook.corpus.files import read_lines
from ragbook.errors import InputError
from ragbook.evaluation.perplexity import Neighbours, approximation, look_up, prompted, read
from ragbook.evaluation.tuning import LAMS, TEMPERATURES
from ragbook.index.datastore import add_approximate, build_datastore
from ragbook.index.neighbours import FEWEST
from ragbook.methods import adaptive
from ragbook.methods.knn_lm import interpolate, knn_target_log_prob, tune
from ragbook.models import load_lm

RESAMPLES, K = 10_000, 1024

FEWEST_ARTICLES = 12
"""Of a file: a sixth of them, at least two, is dev, where a weight is fitted to all but one."""


@dataclass(frozen=True)
class Settings:
    """What held-out dev articles say about the weight of the memory."""

    lam: float
    temperature: float
    weigh: adaptive.AdaptiveLambda
    dev: dict[str, float]  # perplexities on dev; of the adaptive weight, cross-fitted


def knn(found: Sequence[Neighbours], temperature: float) -> list[Tensor]:
    """log p_kNN of every token of every document."""
    return [knn_target_log_prob(distances, hits, temperature) for distances, hits, _ in found]


def perplexity_of(log_probs: Sequence[Tensor]) -> float:
    """exp of minus the mean log p of a token, over the tokens of all documents."""
    return math.exp(-float(torch.cat(list(log_probs)).double().mean()))


def settle(base: Sequence[Tensor], found: Sequence[Neighbours]) -> Settings:
    """Tune lambda and temperature by their grid, and fit the adaptive lambda at that temperature.

    Parameters
    ----------
    base: log p_LM of every token of every dev document.
    found: their neighbours, as `look_up` gives them.
    """
    distances, hits, features = zip(*found, strict=True)
    lam, temperature, _ = tune(torch.cat(list(base)), distances, hits, LAMS, TEMPERATURES)
    neighbours = knn(found, temperature)
    weights = adaptive.cross_fitted(features, base, neighbours)
    perplexities = {
        "base": perplexity_of(base),
        "knn-lm": perplexity_of(mixed(base, neighbours, [lam] * len(base))),
        "adaptive": perplexity_of(mixed(base, neighbours, weights)),
    }
    weigh = adaptive.fit(torch.cat(features), torch.cat(list(base)), torch.cat(neighbours))
    return Settings(lam, temperature, weigh, perplexities)


def mixed(
    base: Sequence[Tensor], neighbours: Sequence[Tensor], weights: Sequence[float | Tensor]
) -> list[Tensor]:
    """log p of kNN-LM of every token, with each document's weight or weights."""
    return [interpolate(b, n, w) for b, n, w in zip(base, neighbours, weights, strict=True)]


def relative_difference(
    log_probs: Sequence[Tensor], base: Sequence[Tensor], seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The perplexity's relative difference to the base's, and its 95 % interval.

    Articles are resampled, whole, and each resample's perplexities are taken over its tokens.

    Returns
    -------
    (difference, (low, high)): -0.1 is a perplexity 10 % lower.
    """
    tokens = np.array([len(one) for one in base])
    gains = np.array(
        [float((a.double() - b.double()).sum()) for a, b in zip(log_probs, base, strict=True)]
    )
    drawn = np.random.default_rng(seed).integers(0, len(tokens), (RESAMPLES, len(tokens)))
    resampled = np.exp(-gains[drawn].sum(1) / tokens[drawn].sum(1)) - 1
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(np.exp(-gains.sum() / tokens.sum()) - 1), (float(low), float(high))


def measure(
    base: Sequence[Tensor],
    found: Sequence[Neighbours],
    in_context: Sequence[Tensor],
    settings: Settings,
) -> dict[str, dict[str, Any]]:
    """Perplexity of each way to use the memory, and its difference to the base with interval; the
    adaptive weight's to the fixed one as well.

    Parameters
    ----------
    base, found: as in `settle`, of the test documents.
    in_context: log p of their tokens with a retrieved passage in the prompt.
    """
    neighbours = knn(found, settings.temperature)
    ways = {
        "base": base,
        "knn-lm": mixed(base, neighbours, [settings.lam] * len(base)),
        "adaptive": mixed(base, neighbours, [settings.weigh(f) for _, _, f in found]),
        "in-context": in_context,
    }
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
    out["adaptive"]["from_knn_lm"] = relative_difference(ways["adaptive"], ways["knn-lm"])
    return out


def report(
    memory: Corpus, dev: Sequence[str], test: Sequence[str], final: Corpus | None = None
) -> dict[str, Any]:
    """Settle on dev, measure on test; every document is a text of running words.

    Parameters
    ----------
    memory: the passages that dev's tokens search.
    final: those that test's do; the same where it is None.
    """
    lm = load_lm()
    corpora = {"dev": memory, "test": memory if final is None else final}
    with TemporaryDirectory() as folder:
        stores = {
            corpus.name: build_datastore(corpus, Path(folder) / corpus.name, lm)
            for corpus in corpora.values()
        }
        contexts = read(dev, lm)
        base = [one.base for one in contexts]
        settings = settle(base, look_up(contexts, stores[memory.name], K))
        store, contexts = stores[corpora["test"].name], read(test, lm)
        base = [one.base for one in contexts]
        in_context = prompted(test, corpora["test"], lm)
        measured = measure(base, look_up(contexts, store, K), in_context, settings)
        searched = {}
        if len(store) >= FEWEST:
            store = add_approximate(store)
            for name, recompute in (("codes", False), ("recomputed", True)):
                searched[name] = approximation(
                    contexts, store, settings.lam, settings.temperature, K, recompute
                )
        return {
            "pairs": len(store),
            "lam": settings.lam,
            "temperature": settings.temperature,
            "weights": dict(
                zip(adaptive.FEATURES, settings.weigh.weights.round(3).tolist(), strict=True)
            ),
            "dev": settings.dev,
            "test": measured,
            "approximate search": searched,
        }


def wikitext(path: Path) -> list[Passage]:
    """The articles of a WikiText file, one passage each, however long.

    Its tokens are put together again: " @-@ " stands for a hyphen inside a word.

    Raises
    ------
    InputError: the file has fewer than FEWEST_ARTICLES.
    """
    text = re.sub(r" @([-,.])@ ", r"\1", "".join(read_lines(path)))
    parts = re.split(r"^ = ([^=\n]+) = *$", text, flags=re.MULTILINE)[1:]
    pairs = zip(parts[::2], parts[1::2], strict=True)
    articles = [
        Passage(str(n), title, " ".join(body.split())) for n, (title, body) in enumerate(pairs)
    ]
    if len(articles) < FEWEST_ARTICLES:
        raise InputError(
            f"{path} has {len(articles)} articles in WikiText's form; give a file with "
            f"{FEWEST_ARTICLES} or more"
        )
    return articles


def main(path: str | None = None) -> None:
    """Print the report as JSON."""
    if path is None:
        dev, test = (
            ["\n".join(p.text for p in article.passages) for article in miniwiki.heldout(split)]
            for split in ("dev", "test")
        )
        found = report(miniwiki.corpus(), dev, test)
    else:
        articles = wikitext(Path(path))
        sixth = len(articles) // 6
        found = report(
            Corpus("memory-for-dev", articles[: -2 * sixth]),
            [article.text for article in articles[-2 * sixth : -sixth]],
            [article.text for article in articles[-sixth:]],
            final=Corpus("memory", articles[:-sixth]),
        )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
