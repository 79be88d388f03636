"""The checks of chapter 5's exercises pass what is right and refuse plausible mistakes."""

import pytest
from exercises import rag as check

from ragbook.methods import posterior, rag


def weights(tokens, prior):
    return (prior[..., None] + tokens.cumsum(-1) - tokens).softmax(1)


def prior_at_every_token(tokens, prior, mask):
    return ((prior[..., None] + tokens) * mask[:, None]).sum(-1).logsumexp(-1)


def padding_counts(tokens, prior, mask):
    return (prior + tokens.sum(-1)).logsumexp(-1)


def padding_counts_inside(tokens, prior, mask):
    return (prior[..., None] + tokens).logsumexp(1).sum(-1)


def without_the_prior(tokens, prior, mask):
    return (tokens * mask[:, None]).logsumexp(1).sum(-1)


def unwritten(*_):
    raise NotImplementedError


RIGHT = {
    check.sequence_log_prob: rag.sequence_log_prob,
    check.token_log_prob: rag.token_log_prob,
    check.running_weights: weights,
    check.elbo: rag.elbo,
}
WRONG = [
    (check.sequence_log_prob, rag.token_log_prob),
    (check.sequence_log_prob, prior_at_every_token),
    (check.sequence_log_prob, padding_counts),
    (check.sequence_log_prob, lambda *given: rag.sequence_log_prob(*given).exp()),
    (check.sequence_log_prob, lambda *given: rag.sequence_log_prob(*given).sum()),
    (check.token_log_prob, rag.sequence_log_prob),
    (check.token_log_prob, padding_counts_inside),
    (check.token_log_prob, without_the_prior),
    (check.running_weights, lambda tokens, prior: prior.exp()[..., None].expand_as(tokens)),
    (
        check.running_weights,
        lambda tokens, prior: (prior[..., None] + tokens.cumsum(-1)).softmax(1),
    ),
    (check.running_weights, rag.token_posterior),
    (check.running_weights, lambda tokens, prior: weights(tokens, prior).log()),
    (check.running_weights, lambda tokens, prior: posterior(prior, tokens.sum(-1))),
    (check.elbo, lambda q, prior, given: (q * (prior + given - q.log())).sum(-1)),
    (check.elbo, lambda q, prior, given: (q * (prior + given)).sum(-1)),
    (check.elbo, lambda q, prior, given: (prior + given).logsumexp(-1)),
    (check.elbo, rag.elbo_gap),
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
