r"""The language-modelling task: one model, one held-out text, with and without the passages.

The two ways to give the model the passages are scored on exactly the same tokens as the model
alone:

* `knn-lm` searches the neighbours of every context among all contexts of the corpus, exactly, and
  interpolates (Khandelwal et al. 2020, equation 3);
* `in-context` retrieves one passage for each window, with the window's context as the query, and
  puts it into the prompt (Ram et al. 2023).

The text that is scored is that of all documents with some words in them, each from its first
character to its last as it was given. All N tokens that the model's own tokenizer cuts it into are
scored, once each: the first one of a document too, after the start token alone, but no start or end
token, which are not text. `ragbook.evaluation.windows` says what each has before it. From the log
probabilities of the tokens in nats come

\[ \text{perplexity} = \exp\!\left(-\frac{1}{N} \sum_t \log p(w_t \mid w_{<t})\right), \quad
   \text{by word} = \exp\!\left(-\frac{1}{W} \sum_t \log p(w_t \mid w_{<t})\right), \quad
   \text{bits per byte} = -\frac{1}{B \ln 2} \sum_t \log p(w_t \mid w_{<t}) \]

where the same text has W words, split on white space, and B bytes in UTF-8, white space included.
Models with different tokenizers can be compared by word and by byte, and not by token, as long as
their tokenizers keep the whole text. The bundled model's does not: it drops upper case, accents and
how much white space there is, which it then need not predict, so its figures are too low beside
those of a model that has to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ragbook.corpus import Corpus
from ragbook.errors import InputError
from ragbook.evaluation.windows import (
    STRIDE,
    WINDOW,
    Contexts,
    check_windows,
    contexts_of,
    prompted,
    windows,
    with_tokens,
)
from ragbook.index.datastore import Datastore, build_datastore
from ragbook.index.neighbours import PROBES, recall
from ragbook.methods.knn_lm import (
    LAMS,
    TEMPERATURES,
    adaptive,
    interpolate,
    knn_target_log_prob,
    tune,
)
from ragbook.models import load_language_model
from ragbook.models.bundled import BUNDLED, tuned_for_text

if TYPE_CHECKING:
    from ragbook.models import LanguageModel


@dataclass(frozen=True)
class Scored:
    """All that scoring one document's N tokens needs, except lambda, temperature and k."""

    base: Tensor  # float32 [N], log p_LM
    distances: Tensor  # float32 [N, k], squared L2 to the nearest keys, nearest first
    hits: Tensor  # bool [N, k], whether the neighbour's next token is the right one
    features: Tensor  # float32 [N, F], see `ragbook.methods.knn_lm.adaptive`
    in_context: Tensor  # float32 [N], log p_LM with a retrieved passage in the prompt


Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""(queries float32 [N, d], k) -> (squared distances float32 [N, k], rows int64 [N, k])."""

Neighbours = tuple[Tensor, Tensor, Tensor]
"""(distances, hits, features) of one document's tokens, as in `Scored`."""

SEARCHED = 8192
"""How many contexts' neighbours are searched in one pass over the keys."""

RECALLED = 256
"""How many contexts are also searched exactly, to measure the recall of an approximate search."""


def look_up(
    contexts: Sequence[Contexts], datastore: Datastore, k: int, search: Search | None = None
) -> list[Neighbours]:
    """The neighbours of every token of every document: (distances, hits, features) as in `Scored`.

    SEARCHED tokens of all documents are looked up in one pass over the keys, as these may not fit
    into memory.

    Parameters
    ----------
    k: neighbours of each token.
    search: how neighbours are found; an exact search by default.
    """
    search = search or datastore.search
    names = ("queries", "targets", "entropy", "expected", "expectation")
    every = [torch.cat([getattr(one, name) for one in contexts]) for name in names]
    parts = []
    for first in range(0, len(every[0]), SEARCHED):
        queries, targets, entropy, expected, expectation = (
            column[first : first + SEARCHED] for column in every
        )
        found, rows = search(queries.numpy(), k)
        # Where there is no neighbour (row -1, distance inf), the weight is 0 with any token.
        distances, values = torch.from_numpy(found), torch.from_numpy(datastore.values[rows])
        parts.append(
            (
                distances,
                values == targets[:, None],
                adaptive.features(distances, values, entropy, expected, expectation),
            )
        )
    lengths = [len(one.base) for one in contexts]
    columns = (torch.cat(column).split(lengths) for column in zip(*parts, strict=True))
    return list(zip(*columns, strict=True))


@contextmanager
def _memory(
    corpus: Corpus, lm: LanguageModel, datastore: Datastore | None, progress: bool
) -> Iterator[Datastore]:
    """The given datastore, checked to be the model's; without one, the corpus's datastore, built in
    a temporary folder."""
    if datastore is not None:
        datastore.check_model(lm)
        yield datastore
        return
    with TemporaryDirectory() as folder:
        yield build_datastore(corpus, Path(folder) / "datastore", lm, progress)


def score(
    documents: Sequence[str],
    corpus: Corpus,
    lm: LanguageModel,
    k: int = 1024,
    progress: bool = True,
    datastore: Datastore | None = None,
    approximate: bool = False,
    window: int = WINDOW,
    stride: int = STRIDE,
) -> list[Scored]:
    """Run the model over the documents and search every token's neighbours.

    Parameters
    ----------
    corpus: passages for the prompts, and for the memory where no datastore is given.
    k: neighbours of each context; all pairs where the memory has fewer.
    datastore: the memory; None builds that of the corpus, in a temporary folder.
    approximate: search with the datastore's approximate index; the distances are still exact.
    window, stride: tokens of a window, and how many of them are scored; the others are the context.

    Raises
    ------
    InputError: there is no text, another model made the datastore, it has no such index, or the
        windows are none or longer than the model can read.
    """
    check_windows(lm, window, stride)
    documents = with_tokens(documents, lm)
    with _memory(corpus, lm, datastore, progress) as memory:
        contexts = contexts_of(documents, lm, progress, window, stride)
        search = partial(memory.search_approximately, recompute=True) if approximate else None
        found = look_up(contexts, memory, k, search)
    in_context = prompted(documents, corpus, lm, progress, window, stride)
    return [
        Scored(own.base, *neighbours, beside)
        for own, neighbours, beside in zip(contexts, found, in_context, strict=True)
    ]


def approximation(
    contexts: Sequence[Contexts],
    datastore: Datastore,
    lam: float,
    temperature: float,
    k: int = 1024,
    probes: Sequence[int] = (PROBES,),
) -> dict[str, Any]:
    """What the approximate search costs: its recall, and its perplexity beside the exact search's.

    Parameters
    ----------
    lam, temperature, k: of the interpolation.
    probes: numbers of cells to search; each is tried with the approximate distances of the codes,
        and with the exact distances of the stored keys.

    Returns
    -------
    {"exact": perplexity, "approximate": [{"probes", "recomputed", "recall": the share of the exact
    k neighbours that were found, "perplexity"}]}.

    Raises
    ------
    InputError: the datastore has no approximate index.
    """
    base = torch.cat([one.base for one in contexts])

    def searched(search: Search) -> tuple[float, np.ndarray]:
        """Perplexity with what a search finds, and the rows that it found [N, k]."""
        every: list[np.ndarray] = []

        def kept(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            distances, rows = search(queries, k)
            every.append(rows)
            return distances, rows

        found = look_up(contexts, datastore, k, kept)
        knn = torch.cat([knn_target_log_prob(d, h, temperature) for d, h, _ in found])
        mean = interpolate(base, knn, lam).double().mean()
        return math.exp(-float(mean)), np.concatenate(every)

    exact, exact_rows = searched(datastore.search)
    tried = []
    for recompute in (False, True):
        for cells in probes:
            search = partial(datastore.search_approximately, probes=cells, recompute=recompute)
            value, rows = searched(search)
            tried.append(
                {
                    "probes": cells,
                    "recomputed": recompute,
                    "recall": recall(rows, exact_rows),
                    "perplexity": value,
                }
            )
    return {"exact": exact, "approximate": tried}


def token_log_probs(
    documents: Sequence[str],
    corpus: Corpus,
    lm: LanguageModel,
    k: int = 1024,
    lam: float | None = None,
    temperature: float | None = None,
    progress: bool = True,
    datastore: Datastore | None = None,
    approximate: bool = False,
    window: int = WINDOW,
    stride: int = STRIDE,
) -> dict[str, list[np.ndarray]]:
    """log p of every token of every document, by name: `base`, `knn-lm`, `in-context`.

    Parameters
    ----------
    lam, temperature: of kNN-LM; None takes the bundled values, tuned on other held-out articles.
    datastore, approximate, window, stride: as in `score`.

    Returns
    -------
    {name: [float64 [N], nats, for each document that has words]}.

    Raises
    ------
    InputError: as in `score`.
    """
    chosen = tuned_for_text()
    weight = chosen["lam"] if lam is None else lam
    divisor = chosen["temperature"] if temperature is None else temperature
    out: dict[str, list[np.ndarray]] = {"base": [], "knn-lm": [], "in-context": []}
    scored = score(documents, corpus, lm, k, progress, datastore, approximate, window, stride)
    for found in scored:
        neighbours = knn_target_log_prob(found.distances, found.hits, divisor)
        columns = (found.base, interpolate(found.base, neighbours, weight), found.in_context)
        for name, column in zip(out, columns, strict=True):
            out[name].append(column.double().numpy())
    return out


def summary(log_probs: np.ndarray, documents: Sequence[str]) -> dict[str, float | int]:
    """The figures of one model, as the head of this module defines them.

    Parameters
    ----------
    log_probs: float64 [N], of all tokens of the documents, nats; -inf is allowed.
    documents: the text that they are the tokens of.

    Returns
    -------
    {"perplexity", "tokens", "word_perplexity", "bits_per_byte", "words", "bytes"}; a perplexity
    that is larger than a float can be, as that by word of a text without spaces, is inf.
    """
    nats = -float(log_probs.sum())
    words = sum(len(document.split()) for document in documents)
    size = sum(len(document.encode()) for document in documents)
    return {
        "perplexity": _exp(-float(log_probs.mean())),
        "tokens": len(log_probs),
        "word_perplexity": _exp(nats / words),
        "bits_per_byte": nats / math.log(2) / size,
        "words": words,
        "bytes": size,
    }


def _exp(nats: float) -> float:
    """exp, and inf where `math.exp` overflows."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def perplexity(
    documents: Sequence[str],
    corpus: Corpus,
    k: int = 1024,
    progress: bool = True,
    datastore: Datastore | None = None,
    lm: LanguageModel | None = None,
    dev: Sequence[str] | None = None,
    approximate: bool = False,
    lam: float | None = None,
    temperature: float | None = None,
    window: int = WINDOW,
    stride: int = STRIDE,
) -> dict[str, dict[str, float | int]]:
    """Perplexity by token and by word, and bits per byte, of a language model on the documents.

    Parameters
    ----------
    corpus, k, datastore, approximate, window, stride: as in `score`.
    lm: the language model; None takes the bundled one.
    dev: documents that lambda and temperature are tuned on, as far as they are not given; None
        takes the bundled model's values.
    lam: kNN-LM's weight of the neighbours, from 0 to 1.
    temperature: what kNN-LM divides the squared distances by, more than 0.

    Returns
    -------
    {name: {"perplexity": float, "tokens": int, "word_perplexity": float, "bits_per_byte": float,
    "words": int, "bytes": int}} with the names `base`, `knn-lm`, `in-context`. The head of this
    module defines them and the text that is scored. For an approximate search `knn-lm` also has its
    "recall", on the first RECALLED tokens.

    Raises
    ------
    InputError: as in `score`; k, lambda or temperature are out of their range; or for a model whose
        lambda and temperature are not known, one is not given and there is no `dev`.
    """
    _check_settings(k, lam, temperature)
    given = {"lambda": lam, "temperature": temperature}
    missing = [name for name, value in given.items() if value is None]
    if missing and dev is None and lm is not None and lm.name != BUNDLED:
        raise InputError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} known for the bundled "
            f"language model only; give {' and '.join(f'--{name}' for name in missing)}, or "
            "held-out text to tune on with --dev"
        )
    model = lm or load_language_model()
    check_windows(model, window, stride)
    documents = with_tokens(documents, model)
    with _memory(corpus, model, datastore, progress) as memory:
        if missing and dev is not None:
            contexts = contexts_of(with_tokens(dev, model), model, progress, window, stride)
            distances, hits, _ = zip(*look_up(contexts, memory, k), strict=True)
            lam, temperature, _ = tune(
                torch.cat([one.base for one in contexts]),
                distances,
                hits,
                LAMS if lam is None else (lam,),
                TEMPERATURES if temperature is None else (temperature,),
            )
        settings = (k, lam, temperature, progress, memory, approximate, window, stride)
        found = token_log_probs(documents, corpus, model, *settings)
        out = {name: summary(np.concatenate(parts), documents) for name, parts in found.items()}
        if approximate:
            # No token of a text in words is longer than 16 characters on average.
            beginning = documents[0][: 16 * RECALLED]
            if next(windows(model, beginning), None) is None:  # characters that are no tokens
                beginning = documents[0]
            (start,) = contexts_of([beginning], model, False, window, stride)
            queries = start.queries[:RECALLED].numpy()
            near = memory.search_approximately(queries, k)[1]
            out["knn-lm"]["recall"] = recall(near, memory.search(queries, k)[1])
        return out


def _check_settings(k: int, lam: float | None, temperature: float | None) -> None:
    """InputError for a setting of kNN-LM that is out of its range; NaN is in none."""
    if k < 1:
        raise InputError(f"k must be 1 or more, not {k}")
    if lam is not None and not 0 <= lam <= 1:
        raise InputError(f"lambda must be from 0 to 1, not {lam}")
    if temperature is not None and not 0 < temperature < math.inf:
        raise InputError(f"the temperature must be a number above 0, not {temperature}")
