"""The checks of chapter 4's exercises pass what is right and refuse plausible mistakes."""

from collections import defaultdict

import pytest
import torch
from exercises import realm as check

from ragbook.methods import realm


def strings(tokens, probs):
    total = defaultdict(float)
    for start in range(len(tokens)):
        for width, probability in enumerate(probs[start]):
            if start + width < len(tokens):
                total[tuple(tokens[start : start + width + 1])] += probability
    return total


def last_occurrence(tokens, probs):
    return {
        tuple(tokens[start : start + width + 1]): probability
        for start in range(len(tokens))
        for width, probability in enumerate(probs[start])
        if start + width < len(tokens)
    }


def past_the_end(tokens, probs):
    total = defaultdict(float)
    for start in range(len(tokens)):
        for width, probability in enumerate(probs[start]):
            total[(*tokens, 0)[start : start + width + 1]] += probability
    return total


def width_is_a_length(tokens, probs):
    total = defaultdict(float)
    for start in range(len(tokens)):
        for width, probability in enumerate(probs[start]):
            if width and start + width <= len(tokens):
                total[tuple(tokens[start : start + width])] += probability
    return total


def climb(scores, given, steps, rate):
    for _ in range(steps):
        before = scores.softmax(-1)
        after = (before * given) / (before * given).sum()
        scores = scores + rate * (after - before)
    return scores.softmax(-1)


def descent(scores, given, steps, rate):
    return climb(scores, given, steps, -rate)


def first_gradient_only(scores, given, steps, rate):
    return climb(scores, given, 1, steps * rate) if steps else scores.softmax(-1)


def of_the_likelihood(scores, given, steps, rate):
    """p(y | x) in the place of its logarithm."""
    for _ in range(steps):
        before = scores.softmax(-1)
        scores = scores + rate * before * (given - (before * given).sum())
    return scores.softmax(-1)


def expectation_maximization(scores, given, steps, rate):
    """The posterior becomes the next prior."""
    for _ in range(steps):
        scores = (scores.softmax(-1) * given).log()
    return scores.softmax(-1)


def scores_at_the_end(scores, given, steps, rate):
    return climb(scores, given, steps, rate).log()


def unwritten(*_):
    raise NotImplementedError


RIGHT = {
    check.ascent: climb,
    check.string_probs: strings,
    check.joint_step: lambda: (0.1, 0.3, 0.2),
}
WRONG = [
    (check.ascent, descent),
    (check.ascent, first_gradient_only),
    (check.ascent, of_the_likelihood),
    (check.ascent, expectation_maximization),
    (check.ascent, scores_at_the_end),
    (check.string_probs, last_occurrence),
    (check.string_probs, past_the_end),
    (check.string_probs, width_is_a_length),
    (check.joint_step, lambda: (0.5, 0.9, 0.1)),  # the posterior rises
    (check.joint_step, lambda: (0.1, 0.2, 0.3)),  # the wrong passage is the better one
    (check.joint_step, lambda: (0.1, 0.3, 0.0)),
    (check.joint_step, lambda: (0.1, 1.3, 0.2)),
]


@pytest.mark.parametrize("k", [2, 7, 20])
def test_half_of_the_largest_gradient_needs_a_ratio_of_k_plus_one(k):
    """As a solution says, and that a ratio of 100 gives 93 % of it for seven passages."""

    def gradient(ratio):
        given = torch.ones(k)
        given[0] = ratio
        scores = torch.zeros(1, k, requires_grad=True)
        log_p = realm.marginal_log_prob(given.log()[None], scores.log_softmax(-1))
        return torch.autograd.grad(log_p.sum(), scores)[0][0, 0].item()

    assert gradient(k + 1) == pytest.approx((1 - 1 / k) / 2, abs=1e-5)
    if k == 7:
        assert int(100 * gradient(100) / (1 - 1 / k)) == 93


@pytest.mark.parametrize(("one", "answer"), RIGHT.items())
def test_what_is_right_passes(one, answer, capsys):
    one(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(("one", "answer"), WRONG)
def test_what_is_wrong_gets_a_hint(one, answer, capsys):
    one(answer)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize("one", RIGHT)
def test_what_is_not_written_is_told_apart(one, capsys):
    one(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"
