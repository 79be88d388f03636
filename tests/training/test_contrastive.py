"""The losses of a dual encoder: by hand, against a second computation, and their gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.training.contrastive import LOSSES, accuracy, cross_entropy, hinge

SCORES = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 3.0]])
GOLD = torch.tensor([0, 1])
ALL = torch.tensor([[False, True, True], [True, False, True]])


def test_cross_entropy_by_hand():
    first = -math.log(math.e**2 / (math.e**2 + math.e + 1))
    second = -math.log(math.e**0.5 / (1 + math.e**0.5 + math.e**3))
    assert cross_entropy(SCORES, GOLD, ALL).item() == pytest.approx((first + second) / 2)


def test_hinge_by_hand():
    # The first leads by 1, the second is 2.5 behind.
    assert hinge(SCORES, GOLD, ALL).item() == pytest.approx((0 + 3.5) / 2)
    assert hinge(SCORES, GOLD, ALL, margin=1.5).item() == pytest.approx((0.5 + 4.0) / 2)


def test_what_is_no_negative_counts_for_nothing():
    some = torch.tensor([[False, True, False], [True, False, False]])
    first, second = math.log(1 + math.exp(-1)), math.log(1 + math.exp(-0.5))
    assert cross_entropy(SCORES, GOLD, some).item() == pytest.approx((first + second) / 2)
    assert hinge(SCORES, GOLD, some).item() == pytest.approx((0 + 0.5) / 2)
    assert accuracy(SCORES, GOLD, ALL) == 0.5
    assert accuracy(SCORES, GOLD, some) == 1.0


@st.composite
def cases(draw):
    """Scores in float64, a gold column a row, and any negatives beside it (none, too)."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = rng.normal(0, draw(st.sampled_from([0.1, 3, 50])), (rows, columns))
    gold = rng.integers(0, columns, rows)
    negatives = rng.random((rows, columns)) < draw(st.sampled_from([0, 0.5, 1]))
    negatives[np.arange(rows), gold] = False
    return torch.tensor(scores), torch.tensor(gold), torch.tensor(negatives)


@settings(deadline=None)
@given(cases())
def test_both_are_their_definitions(case):
    scores, gold, negatives = case
    entropies, hinges = [], []
    for row, g, n in zip(scores.numpy(), gold.tolist(), negatives.numpy(), strict=True):
        against = row[n]
        entropies.append(-(row[g] - np.logaddexp.reduce([row[g], *against])))
        hinges.append(max([0.0, *(1 - row[g] + s for s in against)]))
    assert cross_entropy(*case).item() == pytest.approx(np.mean(entropies), abs=1e-9)
    assert hinge(*case).item() == pytest.approx(np.mean(hinges), abs=1e-9)


@settings(deadline=None)
@given(cases())
def test_gradient_of_cross_entropy_is_softmax_minus_one_hot(case):
    scores, gold, negatives = case
    scores.requires_grad = True
    cross_entropy(scores, gold, negatives).backward()
    one_hot = torch.zeros_like(scores).scatter(1, gold[:, None], 1.0)
    counted = negatives | one_hot.bool()
    softmax = scores.detach().masked_fill(~counted, -torch.inf).softmax(1)
    torch.testing.assert_close(scores.grad, (softmax - one_hot) / len(scores))


@settings(deadline=None)
@given(cases())
def test_gradient_of_hinge_is_one_pair_or_nothing(case):
    scores, gold, negatives = case
    scores.requires_grad = True
    hinge(scores, gold, negatives).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    for row, grad, g, n in zip(scores, scores.grad * len(scores), gold, negatives, strict=True):
        expected = torch.zeros_like(grad)
        if n.any() and 1 - row[g] + row[n].max() > 0:
            expected[g] = -1.0
            expected[(row == row[n].max()) & n] = 1.0
        torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("loss", LOSSES.values())
def test_only_differences_of_scores_count(loss):
    shifted = SCORES + torch.tensor([[5.0], [-7.0]])
    torch.testing.assert_close(loss(shifted, GOLD, ALL), loss(SCORES, GOLD, ALL))
