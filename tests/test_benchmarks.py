"""What the benchmarks measure against is itself right."""

import math
import random
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.corpus import Passage
from ragbook.methods.knn_lm import interpolate, knn_target_log_prob
from ragbook.models.embedded import minilm_tokenizer
from ragbook.training.reader import worlds
from ragbook.training.reader.train import collate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


KneserNey = runpy.run_path(str(BENCHMARKS / "kneser_ney.py"))["KneserNey"]


def test_a_smaller_vocabulary_writes_the_same_answers_and_points_at_the_same_places():
    """Every piece points at the word of the passage that it is a piece of."""
    choices = runpy.run_path(str(BENCHMARKS / "choices.py"))
    tokenizer, built = minilm_tokenizer(), choices["small_vocabulary"](2000)
    rng = random.Random(0)
    examples = [worlds.example(rng, 2, (1, 3), 0.2) for _ in range(40)]
    whole, cut = collate(tokenizer, examples, 10), built.collate(examples)
    pieces = built.model.decoder.config.vocab_size
    assert built.model.decoder.bert.embeddings.word_embeddings.weight.shape == (2000, 384)
    assert pieces >= int(cut.labels.max())
    assert cut.labels.shape[1] > whole.labels.shape[1]  # names fall into more pieces
    for row, example in enumerate(examples):
        length = int((cut.labels[row] != -100).sum())
        if example.gold is None:
            assert length == 1
            assert not cut.pointer[row].any()
            continue
        assert torch.equal(cut.pointer[row].any(0), whole.pointer[row].any(0))
        assert cut.pointer[row, : length - 1].any(-1).all()
        assert not cut.pointer[row, length - 1 :].any()


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=4),
    st.tuples(st.integers(-1, 5), st.integers(-1, 5)),
)
@settings(deadline=None)
def test_kneser_ney_is_a_distribution(texts, context):
    model = KneserNey(texts, 6)
    for shown in (context, context[1:], ()):
        assert sum(model.prob(shown, token) for token in range(6)) == pytest.approx(1)
        assert all(model.prob(shown, token) >= 0 for token in range(6))


def test_kneser_ney_counts_contexts_below_and_tokens_above():
    """Written out by hand for one text: "Francisco" follows one word only, however often."""
    san, francisco, glasses = 0, 1, 2
    texts = [[san, francisco] * 3 + [glasses], [san, glasses]]
    model = KneserNey(texts, 4)
    bigrams = {(-1, san), (san, francisco), (francisco, san), (francisco, glasses), (san, glasses)}
    follows = Counter(second for _, second in bigrams)
    once, twice = (sum(c == n for c in follows.values()) for n in (1, 2))
    discount = once / (once + 2 * twice)
    total = sum(follows.values())
    lower = discount * len(follows) / total / 4
    assert model.prob((), francisco) == pytest.approx(
        (follows[francisco] - discount) / total + lower
    )
    assert model.prob((), glasses) > model.prob((), francisco)
    assert model.prob((san,), francisco) > model.prob((glasses,), francisco)


def test_the_straightforward_knn_lm_is_the_formula(monkeypatch):
    """Every token of a small vocabulary, by loops; the fast way gives the targets' the same."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    mix = runpy.run_path(str(BENCHMARKS / "knn_lm.py"))["Straightforward"].mix
    generator = torch.Generator().manual_seed(0)
    distances = 20 * torch.rand(3, 7, generator=generator, dtype=torch.float64)
    values = torch.randint(0, 5, (3, 7), generator=generator)
    log_probs = torch.randn(3, 6, generator=generator, dtype=torch.float64).log_softmax(-1)
    mixed = mix(distances, values, log_probs, 0.3, 4.0)
    for row in range(3):
        weights = [math.exp(-d / 4) for d in distances[row].tolist()]
        for token in range(6):
            votes = zip(weights, values[row].tolist(), strict=True)
            said = sum(w for w, v in votes if v == token) / sum(weights)
            expected = math.log(0.7 * log_probs[row, token].exp().item() + 0.3 * said)
            assert mixed[row, token].item() == pytest.approx(expected)
    targets = values[:, 2]
    knn = knn_target_log_prob(distances, values == targets[:, None], 4.0)
    fast = interpolate(log_probs.gather(1, targets[:, None])[:, 0], knn, 0.3)
    torch.testing.assert_close(fast, mixed.gather(1, targets[:, None])[:, 0])


def test_growth_and_what_it_predicts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scale = runpy.run_path(str(BENCHMARKS / "scale.py"))
    sizes = [10, 100, 1_000]
    runs = {
        f"{kind}-{n}": {
            "kind": kind,
            "passages": n,
            "build_seconds": 0.5 * n**1.25,
            **{f"{what}_bytes_per_passage": 7.0 for what in ("index", "vectors", "text")},
        }
        for kind in ("flat", "hnsw", "ivf-pq")
        for n in sizes
    }
    assert scale["growth"](list(runs.values()), "build_seconds") == pytest.approx(1.25)
    slow = [{"passages": n, "seconds": 5 + 0.1 * n} for n in sizes]
    assert scale["growth"](slow, "seconds") == 1
    lines = scale["predict"]({"runs": runs}, 10**6)
    hours = 0.5 * 10 ** (6 * 1.25) / 3600
    assert f"2,812 s x (1,000,000 / 1,000)^1.25 = {hours:,.1f} hours" in lines[3]
    assert "hnsw: index: 1,000,000 x 7.0 bytes = 0.0 GB" in lines


def test_synthetic_vectors_do_not_depend_on_how_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scale = runpy.run_path(str(BENCHMARKS / "scale.py"))
    rng = np.random.default_rng(0)
    step = scale["_root"](rng.normal(size=(50, 6)) * [3, 2, 1, 0.1, 0, 0])
    np.savez(
        tmp_path / "basis.npz",
        centres=rng.normal(size=(9, 6)).astype(np.float32),
        step=step,
        asked=0.1 * step,
    )
    encoder = scale["SyntheticEncoder"](tmp_path)
    passages = [Passage(str(i), "", "") for i in range(2_500)]
    whole = encoder.encode_passages(passages)
    np.testing.assert_array_equal(
        whole[1_990:2_010], encoder.encode_passages(passages[1_990:2_010])
    )
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    assert len(np.unique(whole, axis=0)) == 2_500
    drawn = rng.standard_normal((20_000, 6)).astype(np.float32) @ step
    np.testing.assert_allclose(np.cov(drawn.T), step.T @ step, atol=0.3)
