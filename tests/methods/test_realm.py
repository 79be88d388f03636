"""REALM's mathematics by enumeration, and its gradients against the paper's closed form."""

import itertools
import math

import pytest
import torch

from ragbook.errors import InputError
from ragbook.methods import posterior
from ragbook.methods.realm import (
    Realm,
    joint,
    marginal_log_prob,
    masked_log_prob,
    retrieval_utility,
    score_gradient,
)
from ragbook.models.prompts import passage_text
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever

B, N, T = 3, 4, 3


@pytest.fixture
def drawn():
    torch.manual_seed(0)
    tokens = torch.randn(B, N, T, dtype=torch.float64).sigmoid().log()
    scores = torch.randn(B, N, dtype=torch.float64)
    mask = torch.tensor([[True] * 3, [True, True, False], [True, False, False]])
    return tokens, scores, mask


def test_both_marginals_by_enumeration(drawn):
    """A sum over one passage for the answer, or over one passage for each of its tokens."""
    tokens, scores, mask = drawn
    prior = scores.log_softmax(-1)
    for b in range(B):
        own = [t for t in range(T) if mask[b, t]]
        p = tokens[b].exp().tolist()
        w = prior[b].exp().tolist()
        whole = sum(w[z] * math.prod(p[z][t] for t in own) for z in range(N))
        each = sum(
            math.prod(w[z] * p[z][t] for z, t in zip(drawn_passages, own, strict=True))
            for drawn_passages in itertools.product(range(N), repeat=len(own))
        )
        for form, wanted in (("answer", whole), ("token", each)):
            log_p = masked_log_prob(tokens, prior, mask, form)[b]
            assert log_p.item() == pytest.approx(math.log(wanted), abs=1e-12)


def test_the_forms_agree_for_one_token_or_one_passage(drawn):
    tokens, scores, mask = drawn
    prior = scores.log_softmax(-1)
    for t, p, m in ((tokens[..., :1], prior, mask[:, :1]), (tokens[:, :1], prior[:, :1] * 0, mask)):
        torch.testing.assert_close(
            *(masked_log_prob(t, p, m, form) for form in ("answer", "token"))
        )
    with pytest.raises(InputError, match="answer, token"):
        masked_log_prob(tokens, prior, mask, "sequence")


def test_what_stands_after_an_answer_changes_nothing(drawn):
    tokens, scores, mask = drawn
    other = tokens.masked_fill(~mask[:, None], -3.0)
    for form in ("answer", "token"):
        a, b = (masked_log_prob(t, scores.log_softmax(-1), mask, form) for t in (tokens, other))
        torch.testing.assert_close(a, b)


def test_the_gradient_to_a_score_is_the_papers_closed_form(drawn):
    tokens, scores, mask = drawn
    scores.requires_grad_()
    given = (tokens * mask[:, None]).sum(-1)
    masked_log_prob(tokens, scores.log_softmax(-1), mask).sum().backward()
    closed = score_gradient(given, scores.detach().log_softmax(-1))
    torch.testing.assert_close(scores.grad, closed)
    prior = scores.detach().log_softmax(-1)
    torch.testing.assert_close(closed, posterior(prior, given) - prior.exp())
    torch.testing.assert_close(closed.sum(-1), torch.zeros(B, dtype=torch.float64))
    utility = retrieval_utility(given, given[:, 0])
    torch.testing.assert_close(utility[:, 0], torch.zeros(B, dtype=torch.float64))
    # Up goes what predicts better than the passages do on average.
    better = given > marginal_log_prob(given, prior)[:, None]
    assert torch.equal(closed > 0, better)


def test_the_joint_softmax_by_enumeration():
    torch.manual_seed(1)
    spans, docs = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    spans[0, 1, 2:] = -math.inf
    given, prior = joint(spans, docs)
    every = (spans + docs[..., None]).flatten(1).softmax(-1).reshape(spans.shape)
    torch.testing.assert_close((given + prior[..., None]).exp(), every)
    torch.testing.assert_close(given.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("orqa", [False, True])
def test_answers_are_the_mode_of_the_enumerated_strings(span_reader, orqa):
    """Every span of every passage weighed by hand, in both forms."""
    method = Realm(span_reader, FixedRetriever(), orqa)
    answers = method.answer(QUESTIONS, k=3)
    found = method.retriever.retrieve(QUESTIONS, 3)
    for question, answer, retrieved in zip(QUESTIONS, answers, found, strict=True):
        n = len(retrieved.ids)
        inputs, scores = span_reader.span_scores([question.text] * n, retrieved.passages)
        docs = torch.from_numpy(retrieved.scores) * method.retriever.score_scale
        if orqa:
            scores[:, 0, 0] = -math.inf
            weights = (scores + docs[:, None, None]).flatten().softmax(0).reshape(scores.shape)
        else:
            weights = scores.flatten(1).softmax(-1).reshape(scores.shape)
            weights = weights * docs.softmax(0)[:, None, None]
        total: dict[tuple[int, ...], float] = {}
        for z, start, width in weights.nonzero().tolist():
            if start:
                key = tuple(inputs.tensors["input_ids"][z, start : start + width + 1].tolist())
                total[key] = total.get(key, 0.0) + weights[z, start, width].item()
        best = max(total, key=lambda key: total[key])
        assert span_reader.tokenizer(answer.text, add_special_tokens=False)["input_ids"] == [*best]
        assert answer.log_prob == pytest.approx(math.log(total[best]), abs=1e-4)
        assert sum(e.weight for e in answer.evidence) == pytest.approx(1)
    if orqa:  # nothing is lost to "not here"
        assert sum(total.values()) == pytest.approx(1, abs=1e-5)


def test_log_prob_is_that_of_the_answer_given(span_reader):
    for orqa in (False, True):
        method = Realm(span_reader, FixedRetriever((0, 2)), orqa)
        answers = method.answer(QUESTIONS, k=2)
        log_probs = method.log_prob(QUESTIONS, [a.text for a in answers], k=2)
        assert log_probs.tolist() == pytest.approx([a.log_prob for a in answers], abs=1e-4)


@pytest.mark.parametrize("orqa", [False, True])
def test_spans_are_the_parts_of_the_strings(span_reader, orqa):
    """All spans that read alike sum to p(y | x), with each span where it says."""
    method = Realm(span_reader, FixedRetriever(), orqa)
    question = QUESTIONS[0]
    spans = method.spans(question, 3, 10**6)
    assert [one.probability for one in spans] == sorted(
        (one.probability for one in spans), reverse=True
    )
    texts = {p.id: passage_text(p) for p in PASSAGES}
    for one in spans:
        assert texts[one.passage_id][one.start : one.end] == one.text
    assert {one.passage_id for one in spans} == {"p0", "p1", "p2"}
    answer = method.answer([question], 3)[0]
    own = [one.probability for one in spans if one.text.lower() == answer.text.lower()]
    assert math.log(math.fsum(own)) == pytest.approx(answer.log_prob, abs=1e-5)
    assert method.spans(question, 3, 4) == spans[:4]
