"""The checks of chapter 4's exercises pass what is right and refuse plausible mistakes."""

from collections import defaultdict

import pytest
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


def unwritten(*_):
    raise NotImplementedError


RIGHT = {
    check.score_gradient: realm.score_gradient,
    check.string_probs: strings,
    check.joint_prior: lambda spans, scores: realm.joint(spans, scores)[1],
}
WRONG = [
    (check.score_gradient, lambda given, prior: -realm.score_gradient(given, prior)),
    (check.score_gradient, lambda given, prior: (given + prior).softmax(-1)),
    (check.score_gradient, lambda given, prior: (given + prior).exp() - prior.exp()),
    (check.score_gradient, lambda given, prior: (given + prior).softmax(0) - prior.exp()),
    (
        check.score_gradient,
        lambda given, prior: (
            (given + prior).exp() / (given + prior).exp().sum(-1, keepdim=True) - prior.exp()
        ),
    ),
    (check.score_gradient, lambda given, prior: realm.marginal_log_prob(given, prior)),
    (check.string_probs, last_occurrence),
    (check.string_probs, past_the_end),
    (check.string_probs, width_is_a_length),
    (check.joint_prior, lambda spans, scores: scores.log_softmax(-1)),
    (check.joint_prior, lambda spans, scores: scores + spans.logsumexp(-1)),
    (check.joint_prior, lambda spans, scores: (scores + spans.amax(-1)).log_softmax(-1)),
    (check.joint_prior, lambda spans, scores: realm.joint(spans, scores)[1].exp()),
]


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
