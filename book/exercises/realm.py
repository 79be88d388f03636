"""Checks of chapter 4's exercises: the gradient of a score, strings' probabilities, ORQA's prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ragbook.methods import realm

from . import exercise


@exercise
def score_gradient(gradient: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`gradient(answer_log_probs, doc_log_probs)` gives r(z), [B, n]."""
    prior = torch.tensor([[0.50, 0.25, 0.25]])
    given = torch.tensor([[0.10, 0.60, 0.20]])
    found = gradient(given.log(), prior.log())
    assert found.shape == (1, 3), (
        f"one number for each passage: [1, 3], and not {list(found.shape)}"
    )
    wanted = torch.tensor([[-0.30, 0.35, -0.05]])
    assert not torch.allclose(found, -wanted, atol=1e-5), (
        "the sign: a passage that predicts y better than the average rises"
    )
    assert torch.allclose(found, wanted, atol=1e-5), (
        "the chapter's three passages have the gradients -0.30, 0.35 and -0.05; "
        f"you returned {_rounded(found)}. Is the posterior normalised over the "
        "passages, and are both inputs logarithms?"
    )
    two = torch.tensor([[0.6, 0.4], [0.5, 0.5]]).log()
    lost = torch.tensor([[-900.0, -901.0], [math.log(0.2), -math.inf]])
    found = gradient(lost, two)
    assert found.isfinite().all(), (
        "very small probabilities and -inf must not give nan; stay with logarithms"
    )
    assert torch.allclose(found, realm.score_gradient(lost, two), atol=1e-5), (
        "with two questions, each is normalised over its own passages"
    )


@exercise
def string_probs(
    collect: Callable[
        [list[int], list[list[float]]], Mapping[tuple[int, ...], float]
    ],
) -> None:
    """`collect(tokens, probs)` gives p(y | z, x) of every string of the passage."""
    tokens = [7, 8, 7]
    probs = [[0.1, 0.2], [0.3, 0.1], [0.3, 0.0]]
    found = dict(collect(tokens, probs))
    assert (7,) in found, (
        "the keys are tuples of token ids, (7,) for the first token alone"
    )
    assert math.isclose(found[7,], 0.4, abs_tol=1e-6), (
        "7 occurs twice, with the probabilities 0.1 and 0.3, so p(y | z, x) is 0.4; "
        f"you have {found[7,]:g}"
    )
    assert math.isclose(found.get((7, 8), 0.0), 0.2, abs_tol=1e-6), (
        "probs[i][w] belongs to the tokens from i to i + w, both included: "
        "(7, 8) has 0.2"
    )
    assert set(found) == {(7,), (8,), (7, 8), (8, 7)}, (
        "three tokens have the strings (7,), (8,), (7, 8) and (8, 7), and no span "
        f"ends after the last token; you have {sorted(found)}"
    )
    assert math.isclose(sum(found.values()), 1.0, abs_tol=1e-6), (
        "these spans' probabilities sum to 1, and so must those of the strings"
    )


@exercise
def joint_prior(prior: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`prior(span_scores, doc_scores)` gives ORQA's log p'(z | x), [B, n]."""
    spans = torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]])
    documents = torch.tensor([[0.0, 1.0]])
    found = prior(spans, documents)
    assert found.shape == (1, 2), (
        f"one number for each passage: [1, 2], and not {list(found.shape)}"
    )
    assert torch.allclose(found.exp().sum(-1), torch.ones(1), atol=1e-5), (
        "these are logarithms of probabilities that sum to 1 over the passages"
    )
    assert not torch.allclose(found, documents.log_softmax(-1), atol=1e-4), (
        "that is REALM's prior; ORQA's also depends on the spans' scores"
    )
    generator = torch.Generator().manual_seed(0)
    spans = torch.randn(2, 3, 4, generator=generator)
    documents = torch.randn(2, 3, generator=generator)
    spans[0, 1, 2:] = -math.inf
    wanted = realm.joint(spans, documents)[1]
    assert torch.allclose(prior(spans, documents), wanted, atol=1e-5), (
        "all spans of a passage count, not only its best one, and a span with the "
        "score -inf counts nothing"
    )


def _rounded(values: Tensor) -> list[list[float]]:
    return [[round(value, 3) for value in row] for row in values.tolist()]
