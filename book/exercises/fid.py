"""The exercises of chapter 6: a padded batch, a passage struck out, cost, and REALM's targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ragbook.methods import fid, realm
from ragbook.training import distil

from . import exercise


@exercise
def read(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """Reads a padded batch as each of its questions is read alone, without padding."""
    seeded = torch.Generator().manual_seed(0)
    states = torch.randn(2, 3, 4, 2, generator=seeded)
    queries = torch.randn(2, 2, generator=seeded)
    lengths = torch.tensor(
        [[2, 4, 1], [3, 1, 0]]
    )  # the second has two passages
    mask = (torch.arange(4) < lengths[..., None]).long()
    found = answer(queries, states, mask)
    assert found.shape == (2, 2), (
        f"a vector [d] for each question: [2, 2], and not {list(found.shape)}"
    )
    for b in range(2):
        real = fid.pack(states[b : b + 1], mask[b : b + 1])[0][0]
        alone = (real @ queries[b]).softmax(0) @ real
        whole = states[b].flatten(0, 1)
        assert not torch.allclose(
            found[b], (whole @ queries[b]).softmax(0) @ whole, atol=1e-4
        ), "padding gets attention; its scores must not enter the softmax"
        assert torch.allclose(found[b], alone, atol=1e-5), (
            f"read alone, without its padding, question {b} reads {_rounded(alone)}; in "
            f"your batch it reads {_rounded(found[b])}. Whatever padding has in its "
            "states, its weight is exactly 0 and the others' weights sum to 1"
        )


@exercise
def struck(answer: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """Gives the attention without one passage; the exponentials of the scores are 2, 1, 4 and 1."""
    scores = torch.tensor([2.0, 1, 4, 1]).log()
    owner = torch.tensor([0, 0, 1, 2])
    found = answer(scores.softmax(0), owner, 1)
    assert found.shape == (4,), (
        f"a weight for each of the four tokens: [4], and not {list(found.shape)}"
    )
    assert found[2] == 0, (
        "the token of the passage that is left out gets nothing"
    )
    assert torch.allclose(found.sum(), torch.tensor(1.0)), (
        f"the weights that are left sum to 1 again; yours sum to {found.sum():.3f}"
    )
    assert torch.allclose(found, torch.tensor([2.0, 1, 0, 1]) / 4), (
        "the scores of the others are the same as before, so a softmax over them keeps "
        f"the ratios: 2/4, 1/4, 0 and 1/4, and not {_rounded(found)}"
    )


@exercise
def crossover(answer: Callable[[int, int], int]) -> None:
    """Finds the smallest k whose attention costs more than the matrices of an encoder layer."""
    for length, width in (
        (150, 384),
        (250, 768),
        (100, 100),
        (96, 64),
        (1000, 64),
    ):
        wanted = next(
            k
            for k in range(1, 1000)
            if 2 * (k * length) ** 2 * width > 12 * k * length * width**2
        )
        found = answer(length, width)
        assert found == wanted, (
            f"with L = {length} and d = {width} it is k = {wanted} and not {found}; "
            "compare 2 (k L)^2 d with 12 k L d^2, and mind that it must be greater, not equal"
        )


@exercise
def targets(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Gives targets with which distillation has the gradient of REALM's likelihood."""
    seeded = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, generator=seeded, requires_grad=True)
    answer_log_probs = -3 * torch.rand(2, 3, generator=seeded)
    answer_log_probs[1, 2] = -60.0
    found = answer(scores.detach(), answer_log_probs)
    assert found.shape == (2, 3), (
        f"a target for each passage: [2, 3], and not {list(found.shape)}"
    )
    assert not torch.allclose(
        found.softmax(-1), answer_log_probs.softmax(-1), atol=1e-5
    ), (
        "that target ignores the retriever's own distribution; Atlas distils so, but "
        "REALM's posterior contains the prior"
    )
    (gradient,) = torch.autograd.grad(distil.divergence(scores, found), scores)
    wanted = -realm.score_gradient(
        answer_log_probs, scores.detach().log_softmax(-1)
    ) / len(scores)
    assert torch.allclose(gradient, wanted, atol=1e-6), (
        "distillation's gradient is S - G, that of -log p(y | x) prior minus posterior: "
        "which G makes them equal? The targets are taken before their softmax"
    )


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 3) for value in values.tolist()]
