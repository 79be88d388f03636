r"""The language-modelling task: one model, one held-out text, with and without the passages.

Perplexity is \(\exp(-\frac{1}{N} \sum_t \log p(w_t \mid w_{<t}))\) over the tokens of the model's
own tokenizer. A document is read in windows that overlap, so that every scored token (but the first
ones of a document) has at least `CONTEXT` tokens before it. The two ways to give the model the
passages are scored on exactly the same tokens:

* `knn-lm` searches the neighbours of every context among all contexts of the corpus, exactly, and
  interpolates (Khandelwal et al. 2020, equation 3);
* `in-context` retrieves one passage for each window, with the window's context as the query, and
  puts it into the prompt (Ram et al. 2023).
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
from tqdm import tqdm

from ragbook.corpus import Corpus, Question
from ragbook.errors import InputError
from ragbook.index.datastore import Datastore, build_datastore
from ragbook.index.neighbours import PROBES, recall
from ragbook.methods.knn_lm import adaptive, interpolate, knn_target_log_prob, tune
from ragbook.models import load_language_model
from ragbook.models.bundled import BUNDLED, manifest

if TYPE_CHECKING:
    from ragbook.models import LanguageModel

CONTEXT, STRIDE = 64, 64
"""Context tokens before the scored ones in a window, and tokens scored in it."""

PROMPT = 160
"""The most tokens of a retrieved passage in the prompt."""


@dataclass(frozen=True)
class Window:
    """Token ids of context and scored part; `scored` is where the scored part begins."""

    ids: list[int]
    scored: int


def windows(lm: LanguageModel, document: str) -> Iterator[Window]:
    """Cut a document; each of its tokens is scored in exactly one window."""
    ids = lm.tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
    for at in range(0, len(ids), STRIDE):
        context = [lm.start, *ids[max(0, at - CONTEXT) : at]]
        yield Window([*context, *ids[at : at + STRIDE]], len(context))


@dataclass(frozen=True)
class Contexts:
    """What the model alone computes for one document's N tokens."""

    queries: Tensor  # float32 [N, d], the state before each token
    targets: Tensor  # int64 [N]
    base: Tensor  # float32 [N], log p_LM of the target
    entropy: Tensor  # float32 [N], of the model's distribution, nats
    expected: Tensor  # int64 [N], its most probable token
    expectation: Tensor  # float32 [N], the log-probability of that token


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


def contexts_of(
    documents: Sequence[str], lm: LanguageModel, progress: bool = True
) -> list[Contexts]:
    """Run the model over the documents, without the passages."""
    out = []
    for document in tqdm(documents, desc="documents", disable=None if progress else True):
        parts: list[tuple[Tensor, ...]] = []
        for window in windows(lm, document):
            target = torch.tensor(window.ids[window.scored :])
            ids = torch.tensor([window.ids])
            # The state before the first scored token predicts it; the last one predicts nothing.
            queries, log_probs = (part[0, :-1] for part in lm.forward(ids, last=len(target) + 1))
            expectation, expected = log_probs.max(-1)
            # nansum leaves out tokens of probability 0, for which 0 times -inf is NaN.
            entropy = -torch.nansum(log_probs.exp() * log_probs, -1)
            own = log_probs.gather(1, target[:, None])[:, 0]
            parts.append((queries, target, own, entropy, expected, expectation))
        out.append(Contexts(*(torch.cat(column) for column in zip(*parts, strict=True))))
    return out


def prompted(
    documents: Sequence[str], corpus: Corpus, lm: LanguageModel, progress: bool = True
) -> list[Tensor]:
    """log p of every token, with the passage that BM25 finds for its window's context in the
    prompt: for each document float32 [N], nats."""
    from ragbook.retrieval import BM25Retriever

    retriever = BM25Retriever(corpus)
    out = []
    for document in tqdm(documents, desc="in context", disable=None if progress else True):
        parts = []
        for window in windows(lm, document):
            # The query is the context alone: the scored tokens must not choose their own prompt.
            context = lm.tokenizer.decode(window.ids[1 : window.scored])
            ids = window.ids
            if context.strip():
                passage = retriever.retrieve([Question(context, ())], 1)[0].passages[0]
                ids = [*lm.passage_ids(passage)[:PROMPT], *ids[1:]]
            target = torch.tensor(window.ids[window.scored :])[:, None]
            log_probs = lm.forward(torch.tensor([ids]), last=len(target) + 1)[1][0, :-1]
            parts.append(log_probs.gather(1, target)[:, 0])
        out.append(torch.cat(parts))
    return out


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
) -> list[Scored]:
    """Run the model over the documents and search every token's neighbours.

    Parameters
    ----------
    corpus: passages for the prompts, and for the memory where no datastore is given.
    k: neighbours of each context; all pairs where the memory has fewer.
    datastore: the memory; None builds that of the corpus, in a temporary folder.
    approximate: search with the datastore's approximate index; the distances are still exact.

    Raises
    ------
    InputError: there is no text, another model made the datastore, or it has no such index.
    """
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise InputError("there is no text to measure perplexity on; give a file with some words")
    with _memory(corpus, lm, datastore, progress) as memory:
        contexts = contexts_of(documents, lm, progress)
        search = partial(memory.search_approximately, recompute=True) if approximate else None
        found = look_up(contexts, memory, k, search)
    in_context = prompted(documents, corpus, lm, progress)
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
) -> dict[str, list[np.ndarray]]:
    """log p of every token of every document, by name: `base`, `knn-lm`, `in-context`.

    Parameters
    ----------
    lam, temperature: of kNN-LM; None takes the bundled values, tuned on other held-out articles.
    datastore, approximate: as in `score`.

    Returns
    -------
    {name: [float64 [N], nats, for each document that has words]}.

    Raises
    ------
    InputError: as in `score`.
    """
    tuned: dict[str, float] = manifest()["perplexity"]
    weight = tuned["lam"] if lam is None else lam
    divisor = tuned["temperature"] if temperature is None else temperature
    out: dict[str, list[np.ndarray]] = {"base": [], "knn-lm": [], "in-context": []}
    for found in score(documents, corpus, lm, k, progress, datastore, approximate):
        neighbours = knn_target_log_prob(found.distances, found.hits, divisor)
        columns = (found.base, interpolate(found.base, neighbours, weight), found.in_context)
        for name, column in zip(out, columns, strict=True):
            out[name].append(column.double().numpy())
    return out


def perplexity(
    documents: Sequence[str],
    corpus: Corpus,
    k: int = 1024,
    progress: bool = True,
    datastore: Datastore | None = None,
    lm: LanguageModel | None = None,
    dev: Sequence[str] | None = None,
    approximate: bool = False,
) -> dict[str, dict[str, float | int]]:
    """Perplexities of a language model on the documents.

    Parameters
    ----------
    corpus, k, datastore, approximate: as in `score`.
    lm: the language model; None takes the bundled one.
    dev: documents that lambda and temperature are tuned on; None takes the bundled model's values.

    Returns
    -------
    {name: {"perplexity": float, "tokens": int}} with the names `base`, `knn-lm`, `in-context`; for
    an approximate search also its "recall", on the first RECALLED tokens.

    Raises
    ------
    InputError: as in `score`, or there is no `dev` for a model whose values are not known.
    """
    if lm is not None and lm.name != BUNDLED and dev is None:
        raise InputError(
            "lambda and temperature are known for the bundled language model only; give held-out "
            "text to tune them on with --dev"
        )
    model = lm or load_language_model()
    with _memory(corpus, model, datastore, progress) as memory:
        settings: tuple[float, ...] = ()
        if dev is not None:
            contexts = contexts_of(dev, model, progress)
            distances, hits, _ = zip(*look_up(contexts, memory, k), strict=True)
            settings = tune(torch.cat([one.base for one in contexts]), distances, hits)[:2]
        found = token_log_probs(
            documents,
            corpus,
            model,
            k,
            *settings,
            progress=progress,
            datastore=memory,
            approximate=approximate,
        )
        out: dict[str, dict[str, float | int]] = {}
        for name, parts in found.items():
            every = np.concatenate(parts)
            out[name] = {"perplexity": math.exp(-every.mean()), "tokens": len(every)}
        if approximate:
            out["knn-lm"]["recall"] = _recall(documents, model, memory, k)
    return out


def _recall(documents: Sequence[str], lm: LanguageModel, datastore: Datastore, k: int) -> float:
    """Recall of the approximate search on the first RECALLED tokens, as exact search is slow."""
    text = next(document for document in documents if document.strip())
    start = text[: 16 * RECALLED]  # no token of a text in words is longer than that on average
    queries = contexts_of([start], lm, progress=False)[0].queries[:RECALLED].numpy()
    return recall(datastore.search_approximately(queries, k)[1], datastore.search(queries, k)[1])
