"""A weight of the memory for each context: its features, its fit, and what it may not know."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.methods.knn_lm import interpolate, knn_log_probs
from ragbook.methods.knn_lm.adaptive import FEATURES, TEMPERATURE, cross_fitted, features, fit


@given(st.integers(0, 10_000), st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_features_against_loops(seed, k):
    generator = torch.Generator().manual_seed(seed)
    distances = (50 * torch.rand(3, k, generator=generator)).sort(-1).values
    values = torch.randint(0, 6, (3, k), generator=generator)
    expected = torch.randint(0, 6, (3,), generator=generator)
    entropy, expectation = torch.rand(3), -torch.rand(3)
    got = features(distances, values, entropy, expected, expectation)
    assert got.shape == (3, len(FEATURES))
    knn = knn_log_probs(distances[:, :32], values[:, :32], 6, TEMPERATURE).exp()
    for row in range(3):
        near = distances[row, :32].tolist()
        by_hand = [
            np.log1p(near[0]),
            np.log1p(near[-1]),
            np.log(len(set(values[row, :4].tolist()))),
            np.log(len(set(values[row, :32].tolist()))),
            knn[row].max().item(),
            knn[row, expected[row]].item(),
            entropy[row].item(),
            expectation[row].item(),
        ]
        np.testing.assert_allclose(got[row], by_hand, rtol=1e-4, atol=1e-6)


def test_neighbours_that_are_none_leave_features_finite():
    distances = torch.tensor([[1.0, float("inf")], [2.0, 3.0]])
    known = torch.zeros(2)
    got = features(distances, torch.zeros(2, 2), known, known, known)
    assert got.isfinite().all()


def sample(n: int = 600, seed: int = 0):
    """Contexts whose first feature says where the memory is right; the second says nothing."""
    generator = torch.Generator().manual_seed(seed)
    f = torch.randn(n, 2, generator=generator)
    right = torch.rand(n, generator=generator) < torch.sigmoid(3 * f[:, 0])
    lm = torch.full((n,), -3.0)
    return f, lm, torch.where(right, torch.tensor(-0.5), torch.tensor(float("-inf")))


def test_the_fit_is_at_a_minimum_of_the_penalized_likelihood():
    """Any step from the weights that were found loses, by an independent computation."""
    f, lm, knn = sample()
    found = fit(f, lm, knn, penalty=0.01)
    standard = (f.double() - f.double().mean(0)) / f.double().std(0, correction=0)

    def loss(weights, bias):
        lam = torch.sigmoid(standard @ weights + bias)
        mixed = ((1 - lam) * lm.double().exp() + lam * knn.double().exp()).log()
        return -mixed.mean() + 0.005 * weights.square().sum()

    weights = torch.from_numpy(found.weights).requires_grad_()
    bias = torch.tensor(found.bias, dtype=torch.float64, requires_grad=True)
    loss(weights, bias).backward()
    assert weights.grad is not None
    assert bias.grad is not None
    assert weights.grad.abs().max() < 1e-4
    assert bias.grad.abs() < 1e-4
    torch.testing.assert_close(
        found(f).double(), torch.sigmoid(standard @ weights + bias).detach(), rtol=1e-5, atol=1e-6
    )


def test_it_beats_every_fixed_weight_on_contexts_it_was_not_fitted_to():
    found = fit(*sample())
    f, lm, knn = sample(seed=1)
    adaptive = interpolate(lm, knn, found(f)).mean()
    fixed = max(interpolate(lm, knn, lam).mean() for lam in np.linspace(0, 0.99, 34))
    assert adaptive > fixed + 0.05
    assert ((found(f) > 0) & (found(f) < 1)).all()


def test_a_document_has_no_part_in_its_own_weights():
    parts = [sample(80, seed) for seed in range(3)]
    f, lm, knn = (list(column) for column in zip(*parts, strict=True))
    before = cross_fitted(f, lm, knn)
    changed = [knn[0].flip(0), *knn[1:]]
    after = cross_fitted(f, lm, changed)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])
    others = fit(torch.cat(f[1:]), torch.cat(lm[1:]), torch.cat(knn[1:]))
    torch.testing.assert_close(before[0], others(f[0]))


def test_a_token_that_the_model_holds_for_impossible_leaves_the_fit_finite():
    f, lm, knn = sample()
    lm[0], knn[0] = -1000.0, 0.0
    assert np.isfinite(fit(f, lm, knn).weights).all()
    assert fit(f, lm, knn)(f).isfinite().all()
    assert fit(torch.zeros(4, 2), lm[:4], knn[:4]).weights == pytest.approx(0)  # nothing to tell by
