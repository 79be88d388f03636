"""The checks of chapter 5's exercises pass what is right and refuse plausible mistakes."""

import pytest
import torch
from exercises import rag as check

from ragbook.methods import posterior, rag


def weights(tokens, prior):
    return (prior[..., None] + tokens.cumsum(-1) - tokens).softmax(1)


def toys():
    return (
        torch.tensor([[1.0, 1.0, 1.0], [0.01, 0.01, 0.01]]),
        torch.tensor([[0.001, 1.0, 1.0], [1.0, 0.001, 1.0]]),
    )


def prior_gradient(tokens, prior):
    mixture = (prior[..., None] + tokens).logsumexp(1)
    return (tokens - mixture[:, None]).exp().sum(-1)


def of_the_scores(tokens, prior):
    return (rag.token_posterior(tokens, prior) - prior.exp()[..., None]).sum(-1)


def of_the_whole_answer(tokens, prior):
    whole = tokens.sum(-1)
    return (whole - (prior + whole).logsumexp(-1)[:, None]).exp()


def unwritten(*_):
    raise NotImplementedError


RIGHT = {
    check.toys: toys,
    check.prior_gradient: prior_gradient,
    check.running_weights: weights,
    check.elbo: rag.elbo,
}
WRONG = [
    (check.toys, lambda: toys()[::-1]),
    (check.toys, lambda: (toys()[0], toys()[0])),
    (check.toys, lambda: (torch.full((2, 3), 0.5), toys()[1])),
    (check.toys, lambda: (toys()[0][:, :2], toys()[1])),
    (check.toys, lambda: (toys()[0], toys()[1].round())),
    (check.toys, lambda: (toys()[0], torch.tensor([[0.9, 0.1, 1.0], [0.1, 0.9, 1.0]]))),
    (check.prior_gradient, of_the_scores),
    (check.prior_gradient, of_the_whole_answer),
    (check.prior_gradient, lambda *given: rag.token_posterior(*given).sum(-1)),
    (check.prior_gradient, lambda *given: prior_gradient(*given) / given[0].shape[-1]),
    (check.prior_gradient, lambda *given: prior_gradient(*given).log()),
    (check.prior_gradient, lambda *given: prior_gradient(*given).sum(-1)),
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


def test_rag_token_exceeds_the_best_passage_by_the_solutions_factor_at_most():
    """Two passages and two tokens, no probability below e: (1 + e)^2 / (4 e)."""
    e = 0.05
    p = e + (1 - e) * torch.rand(2000, 2, 2, generator=torch.Generator().manual_seed(0))
    p[0] = torch.tensor([[1.0, e], [e, 1.0]])
    given = p.log(), torch.full((2000, 2), 0.5).log(), torch.ones(2000, 2)
    best = p.prod(-1).amax(-1)
    assert (rag.sequence_log_prob(*given).exp() <= best + 1e-6).all()
    ratio = rag.token_log_prob(*given).exp() / best
    assert ratio[0] == pytest.approx((1 + e) ** 2 / (4 * e))
    assert ratio.max() <= ratio[0]


def test_no_toy_of_three_tokens_gives_rag_sequence_four_times_as_much():
    """As the solution says; the ratio nears its bound where one passage knows everything."""
    p = torch.rand(2000, 2, 3, generator=torch.Generator().manual_seed(0)) ** 8
    p[0] = torch.tensor([[1.0, 1.0, 1.0], [1e-6, 1e-6, 1e-6]])
    given = p.log(), torch.full((2000, 2), 0.5).log(), torch.ones(2000, 3)
    ratio = (rag.sequence_log_prob(*given) - rag.token_log_prob(*given)).exp()
    assert ratio[0] == pytest.approx(4, abs=1e-3)
    assert ratio.max() < 4 + 1e-4
