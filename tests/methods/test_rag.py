"""RAG's decoding and its latent variable, on tiny random models and on random numbers."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ragbook.errors import InputError
from ragbook.methods import posterior
from ragbook.methods.rag import (
    RagSequence,
    RagToken,
    elbo,
    elbo_gap,
    sequence_log_prob,
    token_log_prob,
    token_posterior,
)
from ragbook.models import SeqReader
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever, seq_model

log_probs = st.floats(-20, 0, width=32)


def scores(shape):
    return arrays.arrays(np.float32, shape, elements=log_probs).map(torch.from_numpy)


@given(scores((2, 4)), scores((2, 4)), scores((2, 4)), st.booleans())
@settings(deadline=None)
def test_the_bound_lacks_the_divergence_from_the_posterior(prior, given_z, q, one_passage):
    """ELBO + KL = log p(y | x) for every q; the gap is never negative, and 0 at the posterior."""
    prior, q = prior.double().log_softmax(-1), q.double().softmax(-1)
    given_z = given_z.double()
    if one_passage:  # q may leave passages out
        q = torch.eye(4, dtype=torch.double)[[1, 3]]
    exact = sequence_log_prob(given_z[:, :, None], prior, torch.ones(2, 1))
    bound, gap = elbo(q, prior, given_z), elbo_gap(q, prior, given_z)
    torch.testing.assert_close(bound + gap, exact, rtol=1e-9, atol=1e-9)
    assert (gap > -1e-9).all()
    best = posterior(prior, given_z)
    torch.testing.assert_close(elbo(best, prior, given_z), exact, rtol=1e-6, atol=1e-6)


def test_a_bound_that_bets_on_the_impossible_says_nothing():
    prior, given_z = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[-1.0, float("-inf")]])
    assert elbo(torch.tensor([[0.5, 0.5]]), prior, given_z).item() == float("-inf")
    sure = torch.tensor([[1.0, 0.0]])
    assert elbo(sure, prior, given_z).item() == pytest.approx(math.log(0.5) - 1)
    assert elbo_gap(sure, prior, given_z).item() == pytest.approx(0, abs=1e-6)


@given(scores((2, 3, 4)), scores((2, 3)), st.sampled_from([sequence_log_prob, token_log_prob]))
@settings(deadline=None)
def test_the_gradient_of_a_score_is_posterior_minus_prior(tokens, doc_scores, marginal):
    """d log p(y | x) / d score(z): for RAG-Sequence by the answer, for RAG-Token summed over its
    tokens."""
    tokens, mask = tokens.double(), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    doc_scores = doc_scores.double().requires_grad_()
    log_prior = doc_scores.log_softmax(-1)
    (gradient,) = torch.autograd.grad(marginal(tokens, log_prior, mask).sum(), doc_scores)
    prior = log_prior.detach().exp()
    if marginal is sequence_log_prob:
        wanted = posterior(log_prior.detach(), (tokens * mask[:, None]).sum(-1)) - prior
    else:
        each = token_posterior(tokens, log_prior.detach()) - prior[:, :, None]
        wanted = (each * mask[:, None]).sum(-1)
    torch.testing.assert_close(gradient, wanted, rtol=1e-7, atol=1e-9)


def test_a_token_posterior_of_one_token_is_the_posterior():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 5, 1, generator=generator)
    prior = torch.randn(3, 5, generator=generator).log_softmax(-1)
    torch.testing.assert_close(
        token_posterior(tokens, prior)[:, :, 0], posterior(prior, tokens[:, :, 0])
    )


def token_weights(reader, passages, scores, tokens):
    """p(z_t|x,y<=t) from the model's own logits, by Bayes' rule in float64: [T][n]."""
    states, mask = reader.encode_documents(QUESTIONS[:1], [passages])
    target = [*tokens, reader.end]
    with torch.no_grad():
        logits = reader.model(
            encoder_outputs=(states[0],),
            attention_mask=mask[0],
            decoder_input_ids=torch.tensor([[reader.start, *tokens]] * len(passages)),
        ).logits.double()
    given = logits.log_softmax(-1).exp().numpy()
    prior = np.exp(np.asarray(scores, float) - max(scores))
    prior /= prior.sum()
    out = []
    for t, token in enumerate(target):
        joint = [prior[z] * given[z, t, token] for z in range(len(passages))]
        out.append([one / sum(joint) for one in joint])
    return np.array(out)


def test_rag_tokens_evidence_is_the_mean_of_its_tokens_posteriors(reader):
    """Not p(z | x, y) of the whole answer, which is RAG-Sequence's."""
    rag = RagToken(reader, FixedRetriever(uneven=False), beams=2, max_length=4)
    (answer,) = rag.answer(QUESTIONS[:1], k=4)
    (best,) = rag.generate(QUESTIONS[:1], k=4)[0]
    wanted = token_weights(reader, PASSAGES, [2.0 * s for s in (0.9, 0.4, 0.7, 0.1)], best.tokens)
    ids = [passage.id for passage in PASSAGES]
    own = {one.passage_id: one.weight for one in answer.evidence}
    np.testing.assert_allclose([own[i] for i in ids], wanted.mean(0), atol=1e-4)
    whole = posterior(
        torch.tensor([[2.0 * s for s in (0.9, 0.4, 0.7, 0.1)]]).log_softmax(-1), best.given[None]
    )[0]
    assert np.abs(wanted.mean(0) - whole.numpy()).max() > 1e-3
    assert answer.token_evidence is not None
    for token, row in zip(answer.token_evidence, wanted, strict=True):  # the end token is the last
        each = {one.passage_id: one.weight for one in token.evidence}
        np.testing.assert_allclose([each[i] for i in ids], row, atol=1e-4)
    texts = [one.token for one in answer.token_evidence]
    assert texts == [reader.tokenizer.decode([t]) for t in (*best.tokens, reader.end)]
    assert texts[-1] == "[SEP]"


def test_token_evidence_of_answers_of_several_lengths_and_numbers_of_passages(reader):
    """Nothing of a longer answer's padding, or of a passage that is not there, is counted."""
    retriever = FixedRetriever()
    together = RagToken(reader, retriever, beams=3, max_length=4)
    for question, answer, n in zip(QUESTIONS, together.answer(QUESTIONS, k=3), (3, 2), strict=True):
        (alone,) = RagToken(reader, retriever, beams=3, max_length=4).answer([question], k=n)
        assert answer.token_evidence is not None
        assert alone.token_evidence is not None
        assert len(answer.token_evidence) == len(alone.token_evidence)
        for one, other in zip(answer.token_evidence, alone.token_evidence, strict=True):
            assert len(one.evidence) == n
            assert sum(e.weight for e in one.evidence) == pytest.approx(1, abs=1e-5)
            weights = {e.passage_id: e.weight for e in other.evidence}
            for e in one.evidence:
                assert e.weight == pytest.approx(weights[e.passage_id], abs=1e-4)
        assert sum(e.weight for e in answer.evidence) == pytest.approx(1, abs=1e-5)


def test_one_passage_gives_every_token(reader):
    for answer in RagToken(reader, FixedRetriever(), 2, 3).answer(QUESTIONS, k=1):
        assert answer.token_evidence
        assert {e.weight for one in answer.token_evidence for e in one.evidence} == {1.0}
        assert [e.weight for e in answer.evidence] == [1.0]


def test_rag_sequence_has_one_posterior_for_all_tokens(reader):
    rag = RagSequence(reader, FixedRetriever(uneven=False), 2, 3)
    (answer,), (best,) = rag.answer(QUESTIONS[:1], k=4), rag.generate(QUESTIONS[:1], k=4)[0]
    assert answer.token_evidence is None
    prior = np.exp([2.0 * s for s in (0.9, 0.4, 0.7, 0.1)])
    joint = prior * np.exp(best.given.double().numpy())
    own = {one.passage_id: one.weight for one in answer.evidence}
    np.testing.assert_allclose([own[p.id] for p in PASSAGES], joint / joint.sum(), atol=1e-4)


def test_fast_decoding_is_thorough_where_every_beam_proposes_everything(reader):
    """With one passage no other could have proposed more; with several it never scores higher."""
    for k, exact in ((1, True), (3, False)):
        fast, thorough = (
            RagSequence(reader, FixedRetriever(), 3, 3, thorough=thorough).generate(QUESTIONS, k, 9)
            for thorough in (False, True)
        )
        for few, many in zip(fast, thorough, strict=True):
            scored = {one.tokens: one.log_prob for one in many}
            assert {one.tokens for one in few} == set(scored)
            for one in few:
                assert one.log_prob <= scored[one.tokens] + 1e-4
                if exact:
                    assert one.log_prob == pytest.approx(scored[one.tokens], abs=1e-4)


def test_fast_evidence_names_only_passages_that_proposed_the_answer(reader):
    rag = RagSequence(reader, FixedRetriever(uneven=False), 1, 3, thorough=False)
    for answer, (best, *_) in zip(
        rag.answer(QUESTIONS, k=4), rag.generate(QUESTIONS, 4), strict=True
    ):
        proposing = int((~torch.isneginf(best.given)).sum())
        assert sum(e.weight > 0 for e in answer.evidence) == proposing
        assert sum(e.weight for e in answer.evidence) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", [RagSequence, RagToken])
def test_candidates_come_best_first_and_say_their_probability(reader, kind):
    rag = kind(reader, FixedRetriever(), 3, 3)
    found = rag.generate(QUESTIONS, k=3, num_return_sequences=50)  # far more than there are
    for question, candidates, n in zip(QUESTIONS, found, (3, 2), strict=True):
        assert 1 < len(candidates) <= 9
        assert len({one.tokens for one in candidates}) == len(candidates)
        log_probs = [one.log_prob for one in candidates]
        assert log_probs == sorted(log_probs, reverse=True)
        alone = rag.generate([question], k=n, num_return_sequences=2)[0]  # n passages, not 3
        assert [one.tokens for one in alone] == [one.tokens for one in candidates[:2]]
        assert [one.log_prob for one in alone] == pytest.approx(log_probs[:2], abs=1e-4)


@pytest.mark.parametrize("kind", [RagSequence, RagToken])
@pytest.mark.parametrize("favourite", [None, 100])
def test_a_candidate_says_its_probability_under_every_passage(tokenizer, kind, favourite):
    """Of all its tokens, the unknown word's too, whose number is no label's but for a sign."""
    model: Any = seq_model("t5")
    if favourite is not None:
        model.lm_head = torch.nn.Linear(16, 30522)
        with torch.no_grad():
            model.lm_head.bias[favourite] = 9.0
    reader = SeqReader(model, tokenizer, "t5")
    found = kind(reader, FixedRetriever(uneven=False), 2, 3).generate(QUESTIONS[:1], 4, 2)[0]
    states, mask = reader.encode_documents(QUESTIONS[:1], [PASSAGES])
    for one in found:
        target = torch.tensor([*one.tokens, reader.end])
        with torch.no_grad():
            logits = reader.model(
                encoder_outputs=(states[0],),
                attention_mask=mask[0],
                decoder_input_ids=torch.tensor([[reader.start, *one.tokens]] * 4),
            ).logits
        wanted = logits.log_softmax(-1)[:, torch.arange(len(target)), target].sum(-1)
        torch.testing.assert_close(one.given, wanted, rtol=1e-4, atol=1e-4)
    if favourite is not None:
        assert found[0].tokens == (favourite,) * 3


def test_rag_token_decodes_the_marginal_distribution(reader):
    """Greedy: at every step the word of the highest marginal probability, prefixes run anew."""
    retriever = FixedRetriever(uneven=False)
    rag = RagToken(reader, retriever, beams=1, max_length=3)
    (best,) = rag.generate(QUESTIONS[:1], k=4)[0]
    states, mask = reader.encode_documents(QUESTIONS[:1], [PASSAGES])
    prior = torch.tensor([2.0 * s for s in (0.9, 0.4, 0.7, 0.1)]).log_softmax(-1)
    prefix = [reader.start]
    for token in best.tokens:
        with torch.no_grad():
            logits = reader.model(
                encoder_outputs=(states[0],),
                attention_mask=mask[0],
                decoder_input_ids=torch.tensor([prefix] * 4),
            ).logits[:, -1]
        marginal = torch.logsumexp(prior[:, None] + logits.log_softmax(-1), 0)
        if len(prefix) == 1:
            marginal[reader.end] = float("-inf")
        assert token == int(marginal.argmax())
        prefix.append(token)


def test_nothing_retrieved_is_said(reader):
    class Nothing(FixedRetriever):
        def retrieve(self, questions, k):
            found = super().retrieve(questions, 1)
            return [*found[:-1], type(found[0])((), np.zeros(0, np.float32), ())]

    with pytest.raises(InputError, match="nothing was retrieved for question 2"):
        RagToken(reader, Nothing()).answer(QUESTIONS, k=2)
