"""kNN-LM on real text: the bundled model with a memory of a file's articles, and adapted to them.

`python -m book.experiments.knn_lm_real_text FILE OUT.json` takes articles in any form that
`load_corpus` reads (WikiText's, for instance). The last sixth of them is the test text; all others
are memory and training text. The twelfth of the file before the test text is dev: lambda,
temperature and the adaptive weight are tuned with a memory and a training that leave it out.
Measured on the test text are

* the bundled model, without and with a memory of the file's articles,
* the same model trained on those articles, without and with the memory, and in context,
* each of the two texts with the other's memory: the domain changes and nothing is trained.

Only figures are written, no text. An interrupted training is resumed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ragbook.corpus import Corpus, load_corpus, miniwiki
from ragbook.corpus.building import split_passages
from ragbook.errors import InputError
from ragbook.evaluation.perplexity import contexts_of, look_up, prompted
from ragbook.index.datastore import Datastore, build_datastore
from ragbook.models import LanguageModel, load_language_model
from ragbook.training.lm import adapt_lm
from ragbook.training.run import Run

from .knn_lm import (
    STORES,
    K,
    base_of,
    first_pairs,
    heldout_texts,
    perplexities,
    relative_difference,
    settle,
    shuffled,
)
from .report import write_sections

FEWEST_ARTICLES = 24
"""The fewest articles in a file: a twelfth of them is dev, which needs at least two, as a weight is
fitted to all but one."""

MORE_STEPS = 60
"""Further steps of training after tuning on dev: the model now also reads dev's articles, among the
others, before it is tested."""


class Articles:
    """A file's articles, divided into memory, dev and test."""

    def __init__(self, path: Path) -> None:
        articles = list(load_corpus(path))
        if len(articles) < FEWEST_ARTICLES:
            raise InputError(
                f"{path} has {len(articles)} articles; give a file with {FEWEST_ARTICLES} or more."
            )
        tests, devs = len(articles) // 6, len(articles) // 12
        self.test = [article.text for article in articles[-tests:]]
        self.dev = [
            article.text for article in articles[-tests - devs : -tests]
        ]
        self.known = Corpus("own-text", articles[:-tests])
        self.earlier = Corpus("own-text-without-dev", articles[: -tests - devs])


def bundled(
    articles: Articles, lm: LanguageModel, datastore: Datastore
) -> dict[str, Any]:
    """The bundled model with the articles as its memory, and the settings tuned on dev."""
    without_dev = first_pairs(datastore, len(articles.earlier))
    dev, test = (
        contexts_of(texts, lm) for texts in (articles.dev, articles.test)
    )
    settings = settle(base_of(dev), look_up(dev, datastore, K, without_dev))
    measured = perplexities(
        base_of(test), look_up(test, datastore, K), settings
    )
    return {
        "pairs": len(datastore),
        "settings": settings.described(),
        "test": measured,
    }


def adapted(articles: Articles, work: Path, stores: Path) -> dict[str, Any]:
    """The model trained on the articles, with them as its memory, and the settings tuned on dev."""
    first = adapt_lm(
        Run(work / "lm-without-dev", resume=True), articles.earlier
    )
    dev = contexts_of(articles.dev, first)
    store = build_datastore(
        articles.earlier, stores / "adapted-without-dev", first
    )
    settings = settle(base_of(dev), look_up(dev, store, K))
    lm = adapt_lm(
        Run(work / "lm", steps=MORE_STEPS, resume=True), articles.known, first
    )
    test = contexts_of(articles.test, lm)
    store = build_datastore(articles.known, stores / "adapted", lm)
    passages = Corpus("own-text", split_passages(articles.known))
    in_context = prompted(articles.test, passages, lm)
    base = base_of(test)
    measured = perplexities(base, look_up(test, store, K), settings, in_context)
    unadapted = base_of(contexts_of(articles.test, load_language_model()))
    return {
        "settings": settings.described(),
        "test": measured,
        "from_bundled": relative_difference(base, unadapted),
    }


def crossed(
    texts: tuple[Sequence[str], Sequence[str]],
    lm: LanguageModel,
    memory: Datastore,
) -> dict[str, Any]:
    """Results on `texts`, (dev, test) documents of one domain, with the memory of another, whose
    weight is tuned on dev."""
    dev, test = (contexts_of(part, lm) for part in texts)
    settings = settle(base_of(dev), look_up(dev, memory, K))
    measured = perplexities(base_of(test), look_up(test, memory, K), settings)
    return {
        "pairs": len(memory),
        "settings": settings.described(),
        "test": measured,
    }


def main(path: str, out: str, work: str = "build/own-text") -> None:
    """Measure everything that `out` does not hold yet."""
    articles, lm = Articles(Path(path)), load_language_model()
    parts = {
        "memory": articles.known,
        "dev": articles.dev,
        "test": articles.test,
    }
    own = build_datastore(articles.known, Path(work) / "bundled", lm)
    corpus = shuffled(miniwiki.corpus())
    wiki = build_datastore(corpus, STORES / corpus.name, lm)
    held_out = heldout_texts("dev"), heldout_texts("test")
    file = articles.dev, articles.test
    write_sections(
        Path(out),
        {
            "articles": lambda: {
                name: len(part) for name, part in parts.items()
            },
            "bundled": lambda: bundled(articles, lm, own),
            "adapted": lambda: adapted(articles, Path(work), Path(work)),
            "miniwiki, own memory": lambda: crossed(held_out, lm, wiki),
            "miniwiki, the file's memory": lambda: crossed(held_out, lm, own),
            "the file, miniwiki's memory": lambda: crossed(file, lm, wiki),
        },
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
