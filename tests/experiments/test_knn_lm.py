"""The report on fixed and adaptive weights of the memory, on made-up scores and on tiny text."""

import json

import numpy as np
import pytest
import torch
from experiments.knn_lm import (
    first_pairs,
    knn,
    mixed,
    perplexities,
    perplexity_of,
    relative_difference,
    report,
    settle,
    shuffled,
    surface,
    whole_articles,
)

from ragbook.corpus import Corpus, Passage
from ragbook.index.datastore import build_datastore
from ragbook.methods.knn_lm import LAMS, TEMPERATURES, interpolate, knn_target_log_prob
from ragbook.models import load_language_model


def documents(n: int, seed: int):
    """Base log-probabilities and neighbours; the memory is right where the feature is high."""
    generator = torch.Generator().manual_seed(seed)
    base, found = [], []
    for _ in range(n):
        tokens = 60
        feature = torch.randn(tokens, 1, generator=generator)
        right = torch.rand(tokens, 1, generator=generator) < torch.sigmoid(4 * feature)
        hits = right & (torch.rand(tokens, 8, generator=generator) < 0.7)
        distances = (9 * torch.rand(tokens, 8, generator=generator)).sort(-1).values
        base.append(-4 * torch.rand(tokens, generator=generator) - 0.5)
        found.append((distances, hits, feature))
    return base, found


def test_dev_settles_and_test_is_measured_with_what_it_settled():
    settings = settle(*documents(5, 0))
    base, found = documents(8, 1)
    result = perplexities(base, found, settings, base)
    assert list(result) == ["base", "knn-lm", "adaptive", "in-context"]
    knn = [knn_target_log_prob(d, h, settings.temperature) for d, h, _ in found]
    fixed = torch.cat([interpolate(b, n, settings.lam) for b, n in zip(base, knn, strict=True)])
    assert result["knn-lm"]["perplexity"] == pytest.approx(fixed.neg().mean().exp().item())
    assert result["adaptive"]["perplexity"] < result["knn-lm"]["perplexity"]
    assert result["knn-lm"]["perplexity"] < result["base"]["perplexity"]
    assert result["in-context"]["difference"] == 0
    gain = result["adaptive"]["perplexity"] / result["knn-lm"]["perplexity"] - 1
    assert result["adaptive"]["from_knn_lm"][0] == pytest.approx(gain)
    low, high = result["knn-lm"]["ci95"]
    assert low < result["knn-lm"]["difference"] < high < 0


def test_the_settings_are_the_grids_best_on_dev():
    base, found = documents(4, 2)
    settings = settle(base, found)

    def by_hand(lam, temperature):
        parts = [
            interpolate(b, knn_target_log_prob(d, h, temperature), lam)
            for b, (d, h, _) in zip(base, found, strict=True)
        ]
        return torch.cat(parts).double().mean().neg().exp().item()

    best = min(by_hand(lam, t) for lam in LAMS for t in TEMPERATURES)
    assert settings.dev["knn-lm"] == pytest.approx(best)
    assert by_hand(settings.lam, settings.temperature) == pytest.approx(best)


def test_the_interval_resamples_articles_by_their_tokens():
    """Articles of one gain each: any draw of them has the perplexities' ratio of its tokens."""
    lengths, gains = (10, 30, 60), (0.1, 0.1, 0.1)
    base = [torch.full((n,), -2.0, dtype=torch.float64) for n in lengths]
    better = [b + g for b, g in zip(base, gains, strict=True)]
    difference, (low, high) = relative_difference(better, base)
    assert difference == pytest.approx(np.exp(-0.1) - 1)
    assert low == pytest.approx(difference)
    assert high == pytest.approx(difference)
    better[2] = base[2]  # two thirds of the tokens gain nothing
    difference, (low, high) = relative_difference(better, base)
    assert difference == pytest.approx(np.exp(-0.1 * 40 / 100) - 1)
    assert low == pytest.approx(np.exp(-0.1) - 1)  # a draw without the third article
    assert high == pytest.approx(0)


def test_the_surface_is_every_cell_by_itself():
    base, found = documents(3, 3)
    given = surface(base, found)
    lam, temperature = LAMS[3], TEMPERATURES[1]
    by_hand = perplexity_of(mixed(base, knn(found, temperature), [lam] * 3))
    assert given["perplexity"][1][3] == pytest.approx(by_hand)
    assert list(given["ks"]) == ["1", "4", "8"]
    nearest = [(d[:, :1], h[:, :1], f) for d, h, f in found]
    best = min(
        perplexity_of(mixed(base, knn(nearest, t), [lam] * 3)) for lam in LAMS for t in TEMPERATURES
    )
    assert given["ks"]["1"] == pytest.approx(best)


PASSAGES = [
    Passage(f"{name}-{n}", f"Lake {name}", f"Lake {name} lies in {land}, {n} miles from Brisk.")
    for name, land in (("Velm", "Ordania"), ("Orr", "Istria"), ("Lund", "Ordania"))
    for n in (1, 2)
]
CORPUS = Corpus("lakes", PASSAGES)


def test_passages_of_one_title_make_an_article():
    velm, *others = whole_articles(CORPUS)
    assert velm.text == f"{PASSAGES[0].text} {PASSAGES[1].text}"
    assert [p.id for p in others] == ["Orr-1", "Lund-1"]
    assert sorted(p.id for p in shuffled(CORPUS)) == sorted(p.id for p in PASSAGES)
    assert list(shuffled(CORPUS)) == list(shuffled(CORPUS)) != list(CORPUS)


def test_a_prefix_is_the_memory_that_held_no_more(tmp_path):
    lm = load_language_model()
    whole = build_datastore(CORPUS, tmp_path / "whole", lm, progress=False)
    part = build_datastore(Corpus("part", PASSAGES[:4]), tmp_path / "part", lm, progress=False)
    queries = np.asarray(whole.keys[::9], dtype=np.float32)
    for mine, own in zip(first_pairs(whole, 4)(queries, 7), part.search(queries, 7), strict=True):
        np.testing.assert_array_equal(mine, own)


def test_the_whole_report_on_tiny_text(tmp_path):
    dev = ["Lake Velm lies in Ordania.", "Lake Lund lies far from Brisk."]
    out = tmp_path / "report.json"
    report(out, CORPUS, dev, dev, load_language_model(), tmp_path / "stores")
    found = json.loads(out.read_text())
    assert found["approximate search"] is None  # too few pairs for one
    assert found["test"]["base"]["perplexity"] == pytest.approx(found["settings"]["dev"]["base"])
    assert found["test"]["knn-lm"]["tokens"] > 10
    assert min(map(min, found["surface"]["perplexity"])) == pytest.approx(
        found["settings"]["dev"]["knn-lm"]
    )
    *_, full = found["growth"]
    assert full["pairs"] == found["settings"]["pairs"]
    assert full["perplexity"] == pytest.approx(found["test"]["knn-lm"]["perplexity"])
    low, high = found["whole articles"]["ci95"]
    assert low <= found["whole articles"]["difference"] <= high
    before = out.read_bytes()
    out.write_text(json.dumps(found | {"growth": "was measured before"}))
    report(out, CORPUS, dev, dev, load_language_model(), tmp_path / "stores")
    assert json.loads(out.read_text())["growth"] == "was measured before"
    assert json.loads(before) == found
