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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ragbook.corpus import Corpus, Question
from ragbook.errors import InputError
from ragbook.methods.knn_lm import interpolate, knn_target_log_prob
from ragbook.models import load_lm
from ragbook.models.bundled import manifest

if TYPE_CHECKING:
    from ragbook.models import LanguageModel

CONTEXT, STRIDE = 64, 64
"""Tokens before the scored ones in a window, and tokens scored in it."""

PROMPT = 160
"""Most tokens of a retrieved passage in the prompt."""


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


def corpus_memory(
    lm: LanguageModel, corpus: Corpus, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Keys float32 [N, d] and next tokens int64 [N] of the whole corpus."""
    keys, values = [], []
    for at in tqdm(range(0, len(corpus), 32), desc="memory", disable=None if progress else True):
        for key, value in lm.memory(corpus[at : at + 32]):
            keys.append(key.numpy())
            values.append(value.numpy())
    return np.concatenate(keys), np.concatenate(values)


@dataclass(frozen=True)
class Scored:
    """One document's N tokens, before lambda and temperature: cached for any number of them."""

    base: Tensor  # float32 [N], log p_LM
    distances: Tensor  # float32 [N, k], squared L2 to the nearest keys
    hits: Tensor  # bool [N, k], whether the neighbour's next token is the right one
    in_context: Tensor  # float32 [N], log p_LM with a retrieved passage in the prompt


def score(
    documents: Sequence[str],
    corpus: Corpus,
    lm: LanguageModel,
    k: int = 1024,
    progress: bool = True,
) -> list[Scored]:
    """Run the model over the documents and search every token's neighbours.

    Parameters
    ----------
    k: neighbours of each context; all of them where the corpus has fewer.

    Raises
    ------
    InputError: there is no text.
    """
    import faiss

    from ragbook.retrieval import BM25Retriever

    documents = [document for document in documents if document.strip()]
    if not documents:
        raise InputError("there is no text to measure perplexity on; give a file with some words")
    keys, values = corpus_memory(lm, corpus, progress)
    memory = faiss.IndexFlatL2(keys.shape[1])
    memory.add(keys)
    retriever = BM25Retriever(corpus)
    out = []
    for document in tqdm(documents, desc="documents", disable=None if progress else True):
        parts: list[tuple[Tensor, ...]] = []
        for window in windows(lm, document):
            target = torch.tensor(window.ids[window.scored :])[:, None]
            queries, log_probs = (
                part[0, window.scored - 1 : -1] for part in lm.forward(torch.tensor([window.ids]))
            )
            distances, rows = memory.search(queries.numpy(), min(k, len(values)))
            # The query is the context alone: the scored tokens must not choose their own prompt.
            context = lm.tokenizer.decode(window.ids[1 : window.scored])
            prompted = log_probs
            if context.strip():
                passage = retriever.retrieve([Question(context, ())], 1)[0].passages[0]
                ids = [*lm.passage_ids(passage)[:PROMPT], *window.ids[1:]]
                prompted = lm.forward(torch.tensor([ids]))[1][0, -len(target) - 1 : -1]
            parts.append(
                (
                    log_probs.gather(1, target)[:, 0],
                    torch.from_numpy(distances),
                    torch.from_numpy(values[rows]) == target,
                    prompted.gather(1, target)[:, 0],
                )
            )
        out.append(Scored(*(torch.cat(column) for column in zip(*parts, strict=True))))
    return out


def token_log_probs(
    documents: Sequence[str],
    corpus: Corpus,
    lm: LanguageModel,
    k: int = 1024,
    lam: float | None = None,
    temperature: float | None = None,
    progress: bool = True,
) -> dict[str, list[np.ndarray]]:
    """log p of every token of every document, by name: `base`, `knn-lm`, `in-context`.

    Parameters
    ----------
    lam, temperature: of kNN-LM; None takes the values tuned on held-out articles set aside for it.

    Returns
    -------
    {name: [float64 [N] for each document that has words]}.

    Raises
    ------
    InputError: there is no text.
    """
    tuned: dict[str, float] = manifest()["perplexity"]
    weight = tuned["lam"] if lam is None else lam
    divisor = tuned["temperature"] if temperature is None else temperature
    out: dict[str, list[np.ndarray]] = {"base": [], "knn-lm": [], "in-context": []}
    for found in score(documents, corpus, lm, k, progress):
        neighbours = knn_target_log_prob(found.distances, found.hits, divisor)
        columns = (found.base, interpolate(found.base, neighbours, weight), found.in_context)
        for name, column in zip(out, columns, strict=True):
            out[name].append(column.double().numpy())
    return out


def perplexity(
    documents: Sequence[str], corpus: Corpus, k: int = 1024, progress: bool = True
) -> dict[str, dict[str, float | int]]:
    """Perplexities of the bundled language model on the documents.

    Returns
    -------
    {name: {"perplexity": float, "tokens": int}} with the names `base`, `knn-lm`, `in-context`.
    """
    found = token_log_probs(documents, corpus, load_lm(), k=k, progress=progress)
    out: dict[str, dict[str, float | int]] = {}
    for name, parts in found.items():
        every = np.concatenate(parts)
        out[name] = {"perplexity": math.exp(-every.mean()), "tokens": len(every)}
    return out
