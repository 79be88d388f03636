r"""Leave-one-out: how much less likely an answer becomes when a passage is struck out,

\[ \log p(y \mid x, z_1, \dots, z_n) - \log p(y \mid x, \{z_j\}_{j \ne i}). \]

Each method's evidence is a measure of its own: a posterior, attention, a share of neighbours. This
one means the same for all of them, so it can be compared. Every method that reads passages has it
as its method `leave_one_out`; here is what those have in common.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.errors import InputError
from ragbook.retrieval import Retrieved


def prior_without_each(doc_log_probs: Tensor) -> Tensor:
    """log p(z' | x) with one passage z struck out at a time and the rest renormalised.

    Parameters
    ----------
    doc_log_probs: [B, n], log p(z | x); -inf on padding.

    Returns
    -------
    [B, n, n], nats: row z without passage z, which has -inf there. Every question has at least two
    passages; see `check_leaves_some`.
    """
    n = doc_log_probs.shape[1]
    own = torch.eye(n, dtype=torch.bool, device=doc_log_probs.device)
    rest = doc_log_probs[:, None, :].masked_fill(own, float("-inf"))
    return torch.log_softmax(rest, dim=-1)


def losses(whole: Tensor, without: Tensor, doc_log_probs: Tensor) -> Tensor:
    """What `leave_one_out` gives: log p(y) with all passages minus that without each.

    Parameters
    ----------
    whole: [B], log p(y | x) with all passages.
    without: [B, n], log p(y | x) without each passage.
    doc_log_probs: [B, n], -inf on padding.

    Returns
    -------
    [B, n], nats; +inf where only that passage gives the answer any probability, 0 where the answer
    has none with or without it, -inf on padding.
    """
    difference = whole[:, None] - without
    impossible = whole[:, None].isneginf() & without.isneginf()
    difference = difference.masked_fill(impossible, 0.0)
    return difference.masked_fill(doc_log_probs.isneginf(), float("-inf"))


def check_leaves_some(retrieved: Sequence[Retrieved]) -> None:
    """Raise InputError for a question with a single passage, which cannot be left out."""
    for number, found in enumerate(retrieved, 1):
        if len(found.ids) < 2:
            raise InputError(
                f"question {number} has one passage, and leaving it out leaves none; "
                "retrieve at least 2"
            )
