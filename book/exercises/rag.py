"""Checks of chapter 5's exercises: both likelihoods, RAG-Sequence's running weights, the bound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ragbook.methods import rag

from . import exercise

LogProb = Callable[[Tensor, Tensor, Tensor], Tensor]


@exercise
def sequence_log_prob(log_prob: LogProb) -> None:
    """`log_prob(token_log_probs, doc_log_probs, mask)` is log p_Sequence(y | x), [B]."""
    tokens, prior = _toy()
    found = log_prob(tokens, prior, torch.ones(1, 2))
    _one_a_question(found)
    assert not torch.allclose(found.exp(), torch.tensor([0.25]), atol=1e-5), (
        "0.25 is RAG-Token's; here the product over tokens comes first"
    )
    assert torch.allclose(found.exp(), torch.tensor([0.09]), atol=1e-5), (
        "the chapter's toy has p(y | x) = 0.5 * 0.09 + 0.5 * 0.09 = 0.09; "
        f"you returned log p = {found.item():.4g}, p = {found.exp().item():.4g}"
    )
    _with_padding(log_prob, rag.sequence_log_prob)


@exercise
def token_log_prob(log_prob: LogProb) -> None:
    """`log_prob(token_log_probs, doc_log_probs, mask)` is log p_Token(y | x), [B]."""
    tokens, prior = _toy()
    found = log_prob(tokens, prior, torch.ones(1, 2))
    _one_a_question(found)
    assert not torch.allclose(found.exp(), torch.tensor([0.09]), atol=1e-5), (
        "0.09 is RAG-Sequence's; here the sum over passages comes first"
    )
    assert torch.allclose(found.exp(), torch.tensor([0.25]), atol=1e-5), (
        "the chapter's toy has p(y | x) = 0.5 * 0.5 = 0.25; "
        f"you returned log p = {found.item():.4g}, p = {found.exp().item():.4g}"
    )
    _with_padding(log_prob, rag.token_log_prob)


@exercise
def running_weights(weights: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`weights(token_log_probs, doc_log_probs)` is p(z | x, y_<t), [B, n, T]."""
    tokens = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log()
    prior = torch.tensor([[0.75, 0.25]]).log()
    found = weights(tokens, prior)
    assert found.shape == (1, 2, 2), (
        f"a weight for each passage and token: [1, 2, 2], and not {list(found.shape)}"
    )
    assert torch.allclose(found.sum(1), torch.ones(1, 2), atol=1e-5), (
        "the weights are probabilities and sum to 1 over the passages, at every token"
    )
    assert torch.allclose(found[..., 0], prior.exp(), atol=1e-5), (
        "nothing has been written before the first token, so the weights there are "
        "the prior"
    )
    wanted = torch.tensor([[27 / 28, 1 / 28]])
    assert torch.allclose(found[..., 1], wanted, atol=1e-5), (
        "with the prior (0.75, 0.25) and the first token's probabilities 0.9 and "
        "0.1, the weights at the second token are 27/28 and 1/28"
    )
    tokens, prior, mask = _random(lengths=(5, 5))
    sums = (weights(tokens, prior) * tokens.exp()).sum(1).log().sum(-1)
    assert torch.allclose(
        sums, rag.sequence_log_prob(tokens, prior, mask), atol=1e-4
    ), (
        "the product over t of the weighted sums must be RAG-Sequence's likelihood; "
        "the weights at t depend on all tokens before t"
    )


@exercise
def elbo(bound: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """`bound(q, doc_log_probs, answer_log_probs)` is the ELBO, [B]."""
    prior = torch.tensor([[0.5, 0.5]]).log()
    given = torch.tensor([[0.8, 0.2]]).log()
    exact = torch.tensor([0.5]).log()
    found = bound(torch.tensor([[0.8, 0.2]]), prior, given)
    _one_a_question(found)
    assert torch.allclose(found, exact, atol=1e-5), (
        "here q is the posterior, so the bound is tight: log 0.5 = -0.693; you "
        f"returned {found.item():.3f}"
    )
    found = bound(prior.exp(), prior, given)
    assert torch.allclose(found, torch.tensor([0.4]).log(), atol=1e-5), (
        "with q the prior, the bound is the mean of log 0.8 and log 0.2, -0.916; you "
        f"returned {found.item():.3f}"
    )
    found = bound(torch.tensor([[1.0, 0.0]]), prior, given)
    assert torch.allclose(found, torch.tensor([0.4]).log(), atol=1e-5), (
        "all of q on the first passage gives log(0.5 * 0.8); 0 * log 0 counts 0 and "
        "must not become nan"
    )


def _toy() -> tuple[Tensor, Tensor]:
    tokens = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]])
    return tokens.log(), torch.tensor([[0.5, 0.5]]).log()


def _random(lengths: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = -3 * torch.rand(2, 3, max(lengths), generator=generator)
    prior = torch.randn(2, 3, generator=generator).log_softmax(-1)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return tokens, prior, mask.float()


def _one_a_question(found: Tensor) -> None:
    assert found.shape == (1,), (
        f"one number for each question: [1], and not {list(found.shape)}"
    )


def _with_padding(log_prob: LogProb, reference: LogProb) -> None:
    tokens, prior, mask = _random(lengths=(4, 2))
    assert torch.allclose(
        log_prob(tokens, prior, mask), reference(tokens, prior, mask), atol=1e-5
    ), (
        "two questions with answers of 4 and 2 tokens, three passages each, differ "
        "from the package: are the prior and the padding counted as they should be?"
    )
