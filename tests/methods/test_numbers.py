"""Every numeric core against plain Python loops in float64, written from the papers' formulas."""

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.methods import posterior
from ragbook.methods.fid import fuse
from ragbook.methods.knn_lm import (
    grid,
    interpolate,
    knn_log_probs,
    knn_target_log_prob,
    knn_target_log_probs,
    squared_distances,
    tune,
)
from ragbook.methods.rag import sequence_log_prob, token_log_prob
from ragbook.methods.realm import marginal_log_prob

NEVER = float("-inf")


def log(value: float) -> float:
    return math.log(value) if value > 0 else NEVER


def close(got: torch.Tensor, expected: Sequence, tolerance: float = 1e-9) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance)


def sequence_by_hand(tokens, docs, mask) -> list[float]:
    out = []
    for b in range(len(tokens)):
        total = 0.0
        for z in range(len(docs[b])):
            product = math.exp(docs[b][z])
            for t in range(len(mask[b])):
                if mask[b][t]:
                    product *= math.exp(tokens[b][z][t])
            total += product
        out.append(log(total))
    return out


def token_by_hand(tokens, docs, mask) -> list[float]:
    out = []
    for b in range(len(tokens)):
        product = 1.0
        for t in range(len(mask[b])):
            if mask[b][t]:
                product *= sum(
                    math.exp(docs[b][z]) * math.exp(tokens[b][z][t]) for z in range(len(docs[b]))
                )
        out.append(log(product))
    return out


@st.composite
def scores(draw):
    """(token_log_probs, doc_log_probs, mask); -inf, padding, n_docs = 1 and T = 1 among them."""
    B, n, T = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    tokens = -3 * torch.rand(B, n, T, generator=generator, dtype=torch.float64)
    tokens[torch.rand(B, n, T, generator=generator) < draw(st.sampled_from([0.0, 0.3]))] = NEVER
    raw = torch.randn(B, n, generator=generator, dtype=torch.float64)
    if n > 1 and draw(st.booleans()):
        raw[:, -1] = NEVER  # fewer passages than the others
    lengths = torch.randint(1, T + 1, (B,), generator=generator)
    mask = torch.arange(T)[None, :] < lengths[:, None]
    return tokens, raw.log_softmax(-1), mask


@given(scores())
@settings(max_examples=150, deadline=None)
def test_rag_against_loops(drawn):
    tokens, docs, mask = drawn
    lists = tokens.tolist(), docs.tolist(), mask.tolist()
    close(sequence_log_prob(tokens, docs, mask), sequence_by_hand(*lists))
    close(token_log_prob(tokens, docs, mask), token_by_hand(*lists))
    # Integers serve as a mask as well, and what stands in the padding does not matter.
    noise = torch.where(mask[:, None, :], tokens, torch.tensor(float("nan")).double())
    close(sequence_log_prob(noise, docs, mask.long()), sequence_by_hand(*lists))
    close(token_log_prob(noise, docs, mask.long()), token_by_hand(*lists))


@given(scores())
@settings(max_examples=60, deadline=None)
def test_one_document_makes_both_models_the_plain_reader(drawn):
    tokens, _, mask = drawn
    plain = [
        sum(p for p, m in zip(row[0], keep, strict=True) if m)
        for row, keep in zip(tokens.tolist(), mask.tolist(), strict=True)
    ]
    certain = torch.zeros(len(tokens), 1, dtype=torch.float64)
    close(sequence_log_prob(tokens[:, :1], certain, mask), plain)
    close(token_log_prob(tokens[:, :1], certain, mask), plain)


@given(scores())
@settings(max_examples=60, deadline=None)
def test_one_token_makes_sequence_and_token_the_same(drawn):
    """The prior counts for a target of one token too, where `transformers` loses it."""
    tokens, docs, _ = drawn
    one = torch.ones(len(tokens), 1)
    sequence = sequence_log_prob(tokens[:, :, :1], docs, one)
    torch.testing.assert_close(sequence, token_log_prob(tokens[:, :, :1], docs, one))
    close(sequence, sequence_by_hand(tokens[:, :, :1].tolist(), docs.tolist(), one.tolist()))


def test_rag_token_can_mix_passages_where_sequence_cannot():
    """Each half of the answer is certain under one passage and impossible under the other."""
    tokens = torch.tensor([[[0.0, NEVER], [NEVER, 0.0]]])
    docs = torch.tensor([[0.5, 0.5]]).log()
    mask = torch.ones(1, 2)
    assert sequence_log_prob(tokens, docs, mask).item() == NEVER
    assert token_log_prob(tokens, docs, mask).item() == pytest.approx(math.log(0.25))


def test_gradient_to_the_prior_is_posterior_minus_prior():
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    tokens = -torch.rand(2, 4, 3, generator=generator, dtype=torch.float64)
    mask = torch.ones(2, 3)
    docs = raw.log_softmax(-1)
    sequence_log_prob(tokens, docs, mask).sum().backward()
    expected = posterior(docs, tokens.sum(-1)) - docs.exp()
    torch.testing.assert_close(raw.grad, expected.detach())


def test_padding_leaves_gradients_finite():
    tokens = torch.full((1, 2, 2), NEVER, dtype=torch.float64)
    tokens[0, :, 0] = -1.0
    tokens.requires_grad_()
    docs = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    for core in (sequence_log_prob, token_log_prob):
        (gradient,) = torch.autograd.grad(core(tokens, docs, torch.tensor([[1, 0]])).sum(), tokens)
        assert torch.isfinite(gradient).all(), core.__name__


@given(scores())
@settings(max_examples=100, deadline=None)
def test_realm_marginal_and_posterior_against_loops(drawn):
    tokens, docs, _ = drawn
    answers = tokens[:, :, 0]
    expected, rows = [], []
    for prior, given_z in zip(docs.tolist(), answers.tolist(), strict=True):
        joint = [math.exp(a) * math.exp(d) for a, d in zip(given_z, prior, strict=True)]
        expected.append(log(sum(joint)))
        rows.append([j / sum(joint) for j in joint] if sum(joint) else [math.exp(d) for d in prior])
    close(marginal_log_prob(answers, docs), expected)
    weights = posterior(docs, answers)
    close(weights, rows)
    close(weights.sum(-1), [1.0] * len(rows))


@given(
    st.integers(1, 4), st.integers(1, 6), st.integers(0, 10_000), st.sampled_from([0.5, 1.0, 20.0])
)
@settings(max_examples=100, deadline=None)
def test_knn_distribution_against_loops(N, k, seed, temperature):
    V = 7
    generator = torch.Generator().manual_seed(seed)
    distances = 30 * torch.rand(N, k, generator=generator, dtype=torch.float64)
    values = torch.randint(0, V, (N, k), generator=generator)
    if k > 1:
        distances[0, -1] = float("inf")
    got = knn_log_probs(distances, values, V, temperature)
    for n in range(N):
        weights = [math.exp(-d / temperature) for d in distances[n].tolist()]
        mass = [0.0] * V
        for weight, value in zip(weights, values[n].tolist(), strict=True):
            mass[value] += weight / sum(weights)
        close(got[n], [log(m) for m in mass])
    close(got.exp().sum(-1), [1.0] * N)
    assert knn_log_probs(distances.float(), values.int(), V).dtype == torch.float32


@given(st.integers(0, 10_000), st.sampled_from([0.5, 20.0]))
@settings(max_examples=50, deadline=None)
def test_a_tokens_probability_is_its_entry_in_the_distribution(seed, temperature):
    generator = torch.Generator().manual_seed(seed)
    distances = 30 * torch.rand(4, 6, generator=generator, dtype=torch.float64)
    values = torch.randint(0, 5, (4, 6), generator=generator)
    target = torch.randint(0, 5, (4, 1), generator=generator)
    whole = knn_log_probs(distances, values, 5, temperature).gather(1, target)[:, 0]
    torch.testing.assert_close(knn_target_log_prob(distances, values == target, temperature), whole)


def test_tuning_finds_the_best_of_the_grid():
    generator = torch.Generator().manual_seed(9)
    base = torch.log(torch.rand(12, generator=generator))
    distances = 40 * torch.rand(12, 7, generator=generator)
    hits = torch.rand(12, 7, generator=generator) < 0.4
    lams, temperatures = (0.0, 0.3, 0.6), (1.0, 10.0)
    pieces = (list(distances.split(5)), list(hits.split(5)))
    lam, temperature, mean = tune(base, *pieces, lams, temperatures)
    every = {
        (w, t): float(interpolate(base, knn_target_log_prob(distances, hits, t), w).mean())
        for w in lams
        for t in temperatures
    }
    assert every[lam, temperature] == pytest.approx(max(every.values()))
    assert mean == pytest.approx(max(every.values()))


@given(st.integers(0, 10_000), st.sampled_from([0.5, 10.0]))
@settings(max_examples=60, deadline=None)
def test_the_grid_is_every_cell_by_itself(seed, temperature):
    """Fewer neighbours are the nearest of more; some are none, and some tokens nobody names."""
    generator = torch.Generator().manual_seed(seed)
    distances = (300 * torch.rand(7, 6, generator=generator, dtype=torch.float64)).sort(-1).values
    distances[:2, 4:] = float("inf")
    hits = torch.rand(7, 6, generator=generator) < 0.3
    base = -4 * torch.rand(7, generator=generator, dtype=torch.float64)
    ks, lams = (1, 3, 6), (0.0, 0.4, 0.9)
    found = grid(base, distances.split(4), hits.split(4), lams, (1.0, temperature), ks)
    for a, k in enumerate(ks):
        knn = knn_target_log_prob(distances[:, :k], hits[:, :k], temperature)
        several = knn_target_log_probs(distances, hits, temperature, ks)[:, a]
        close(several, knn.tolist())
        for c, lam in enumerate(lams):
            close(found[a, 1, c], interpolate(base, knn, lam).mean().tolist())


def test_far_neighbours_do_not_underflow():
    far = torch.tensor([[5000.0, 5001.0]])
    got = knn_log_probs(far, torch.tensor([[0, 1]]), 3).exp()
    torch.testing.assert_close(got[0, 0] / got[0, 1], torch.tensor(math.e))


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_interpolation_against_loops(seed, lam):
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    q[0, 0] = 0
    expected = ((1 - lam) * p + lam * q).log()
    torch.testing.assert_close(interpolate(p.log(), q.log(), lam), expected)
    each = torch.tensor([[lam], [0.0], [1.0]], dtype=torch.float64)
    mixed = interpolate(p.log(), q.log(), each)
    assert torch.equal(mixed[1], p[1].log())
    assert torch.equal(mixed[2], q[2].log())


def test_interpolation_is_exact_at_its_ends():
    p = torch.tensor([[0.2, 0.8, 0.0]]).log()
    q = torch.tensor([[0.0, 0.5, 0.5]]).log()
    assert torch.equal(interpolate(p, q, 0.0), p)
    assert torch.equal(interpolate(p, q, 1.0), q)


def test_distances_are_squared_l2():
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(3, 8, generator=generator), torch.randn(5, 8, generator=generator)
    by_hand = [
        [sum((a - b) ** 2 for a, b in zip(q, k, strict=True)) for k in keys.tolist()]
        for q in queries.tolist()
    ]
    torch.testing.assert_close(squared_distances(queries, keys), torch.tensor(by_hand))
    assert squared_distances(keys, keys).diagonal().min() >= 0
    assert squared_distances(keys, keys).diagonal().max() < 1e-4  # a context is near to itself
    near = squared_distances(keys, keys + 0.01)  # 8 dimensions, each 0.01 away
    torch.testing.assert_close(near.diagonal(), torch.full((5,), 8e-4), rtol=0.02, atol=1e-5)


def test_fusing_lays_passages_end_to_end():
    states = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    mask = torch.arange(2 * 3 * 4).reshape(2, 3, 4) % 2
    fused, fused_mask = fuse(states, mask)
    assert fused.shape == (2, 12, 5)
    assert fused_mask.shape == (2, 12)
    for b in range(2):
        for i in range(3):
            for t in range(4):
                assert torch.equal(fused[b, i * 4 + t], states[b, i, t])
                assert fused_mask[b, i * 4 + t] == mask[b, i, t]
