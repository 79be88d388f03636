"""A text in windows that overlap, and what a language model says of every token in them, alone and
with a retrieved passage in the prompt.

A window has `window` tokens. Its last `stride` ones are scored, and those before them are their
context; a window with nothing before it, at the beginning of a document, has the start token alone.
So every token of a document is scored in exactly one window, its first one too, with at least
`window` - `stride` tokens before it where the document has so many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm

from ragbook.corpus import Corpus, Question
from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.models import LanguageModel

WINDOW, STRIDE = 128, 64
"""Tokens of a window, and how many of them are scored."""

PROMPT = 160
"""The most tokens of a retrieved passage in the prompt."""


@dataclass(frozen=True)
class Window:
    """Token ids of context and scored part; `scored` is where the scored part begins."""

    ids: list[int]
    scored: int


def windows(
    lm: LanguageModel, document: str, window: int = WINDOW, stride: int = STRIDE
) -> Iterator[Window]:
    """Cut a document; each of its tokens is scored in exactly one window.

    Parameters
    ----------
    window: tokens of a window, its context's and the scored ones, without the start token.
    stride: how many of them are scored; at most `window`.
    """
    ids = lm.tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]
    for at in range(0, len(ids), stride):
        context = [lm.start, *ids[max(0, at - (window - stride)) : at]]
        yield Window([*context, *ids[at : at + stride]], len(context))


def check_windows(lm: LanguageModel, window: int, stride: int) -> None:
    """InputError for windows that are none, or that the model cannot read after a passage."""
    if not 1 <= stride <= window:
        raise InputError(
            f"a window of {window:,} tokens cannot have {stride:,} that are scored; give a stride "
            "from 1 to the window's tokens"
        )
    if lm.positions is not None and PROMPT + window > lm.positions:
        raise InputError(
            f"a window of {window:,} tokens and a passage of {PROMPT} before it are more than the "
            f"{lm.positions:,} tokens that {lm.name} can read; give a smaller window"
        )


def with_tokens(documents: Sequence[str], lm: LanguageModel) -> list[str]:
    """The documents that there is something to score in: more than white space, and more than what
    the tokenizer drops.

    Raises
    ------
    InputError: there are none.
    """
    kept = [d for d in documents if d.strip() and next(windows(lm, d), None) is not None]
    if not kept:
        raise InputError("there is no text to measure perplexity on; give a file with some words")
    return kept


@dataclass(frozen=True)
class Contexts:
    """What the model alone computes for one document's N tokens."""

    queries: Tensor  # float32 [N, d], the state before each token
    targets: Tensor  # int64 [N]
    base: Tensor  # float32 [N], log p_LM of the target
    entropy: Tensor  # float32 [N], of the model's distribution, nats
    expected: Tensor  # int64 [N], its most probable token
    expectation: Tensor  # float32 [N], the log-probability of that token


def contexts_of(
    documents: Sequence[str],
    lm: LanguageModel,
    progress: bool = True,
    window: int = WINDOW,
    stride: int = STRIDE,
) -> list[Contexts]:
    """Run the model over the documents, without the passages; window and stride as in `windows`."""
    out = []
    for document in tqdm(documents, desc="documents", disable=None if progress else True):
        parts: list[tuple[Tensor, ...]] = []
        for each in windows(lm, document, window, stride):
            target = torch.tensor(each.ids[each.scored :])
            ids = torch.tensor([each.ids])
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
    documents: Sequence[str],
    corpus: Corpus,
    lm: LanguageModel,
    progress: bool = True,
    window: int = WINDOW,
    stride: int = STRIDE,
) -> list[Tensor]:
    """log p of every token, with the passage that BM25 finds for its window's context in the
    prompt: for each document float32 [N], nats. A window without a context gets no passage, so with
    a stride of the whole window this is the model alone.

    Parameters
    ----------
    window, stride: as in `windows`.
    """
    from ragbook.retrieval import BM25Retriever

    retriever = BM25Retriever(corpus)
    out = []
    for document in tqdm(documents, desc="in context", disable=None if progress else True):
        parts = []
        for each in windows(lm, document, window, stride):
            # The query is the context alone: the scored tokens must not choose their own prompt.
            context = lm.tokenizer.decode(each.ids[1 : each.scored])
            ids = each.ids
            if context.strip():
                passage = retriever.retrieve([Question(context, ())], 1)[0].passages[0]
                ids = [*lm.passage_ids(passage)[:PROMPT], *ids[1:]]
            target = torch.tensor(each.ids[each.scored :])[:, None]
            log_probs = lm.forward(torch.tensor([ids]), last=len(target) + 1)[1][0, :-1]
            parts.append(log_probs.gather(1, target)[:, 0])
        out.append(torch.cat(parts))
    return out
