"""Checks of chapter 5's exercises: toys, the prior's gradient, running weights and the bound."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ragbook.methods import rag

from . import exercise


@exercise
def toys(answer: Callable[[], tuple[Tensor, Tensor]]) -> None:
    """`answer()` is p(y_t | x, z, y_<t) [n_docs, T] of two toys: RAG-Sequence gives the answer more
    than three times as much in the first, RAG-Token a hundred times as much in the second."""
    ratios = []
    for which, toy in zip(("first", "second"), answer(), strict=True):
        p = torch.as_tensor(toy, dtype=torch.float32)
        assert p.shape == (2, 3), (
            f"the {which} toy is to be [2, 3], two passages and three tokens, and not {list(p.shape)}"
        )
        assert ((p > 0) & (p <= 1)).all(), (
            f"the {which} toy has probabilities above 0 and at most 1"
        )
        given = (
            p.log()[None],
            torch.tensor([[0.5, 0.5]]).log(),
            torch.ones(1, 3),
        )
        sequence, token = (
            core(*given).exp().item()
            for core in (rag.sequence_log_prob, rag.token_log_prob)
        )
        ratios.append(sequence / token)
    assert ratios[0] > 3, (
        f"in the first toy RAG-Sequence gives {ratios[0]:.3g} times what RAG-Token gives; what if "
        "one passage knows all three tokens?"
    )
    assert 1 / ratios[1] > 100, (
        f"in the second toy RAG-Token gives {1 / ratios[1]:.3g} times what RAG-Sequence gives; no "
        "passage may know the whole answer"
    )


@exercise
def prior_gradient(gradient: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`gradient(token_log_probs, doc_log_probs)` is that of log p_Token(y | x) with respect to the
    prior's probabilities, [B, n_docs]."""
    tokens = torch.tensor([[[0.8, 0.4], [0.4, 0.8]]]).log()
    prior = torch.tensor([[0.75, 0.25]])
    found = gradient(tokens, prior.log())
    assert found.shape == (1, 2), (
        f"one number for each passage: [1, 2], and not {list(found.shape)}"
    )
    assert (found >= 0).all(), (
        "more of a passage never lowers the mixture; posterior minus prior is the gradient "
        "with respect to the scores"
    )
    wanted = torch.tensor([[0.8 / 0.7 + 0.4 / 0.5, 0.4 / 0.7 + 0.8 / 0.5]])
    assert torch.allclose(found, wanted, atol=1e-5), (
        "with the prior (0.75, 0.25) and the tokens (0.8, 0.4) and (0.4, 0.8) the mixture is 0.7 "
        "and 0.5, and the gradient 0.8 / 0.7 + 0.4 / 0.5 = 1.943 for the first passage; you "
        f"returned {found[0, 0]:.4g}"
    )
    tokens, prior, mask = _random(lengths=(5, 5))
    free = prior.exp().requires_grad_()
    log_p = rag.token_log_prob(tokens, free.log(), mask).sum()
    (wanted,) = torch.autograd.grad(log_p, free)
    assert torch.allclose(gradient(tokens, prior), wanted, atol=1e-4), (
        "for two questions with three passages and five tokens, autograd finds other numbers"
    )


@exercise
def running_weights(weights: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`weights(token_log_probs, doc_log_probs)` is p(z | x, y_<t), [B, n_docs, T]."""
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
