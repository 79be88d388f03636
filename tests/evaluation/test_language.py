"""The report on fixed and adaptive weights of the memory, on made-up scores and on tiny text."""

import json

import numpy as np
import pytest
import torch

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.evaluation import language
from ragbook.evaluation.language import measure, relative_difference, report, settle, wikitext
from ragbook.evaluation.tuning import LAMS, TEMPERATURES
from ragbook.methods.knn_lm import interpolate, knn_target_log_prob


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
    result = measure(base, found, base, settings)
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


def test_the_whole_report_on_tiny_text():
    passages = [
        Passage("a-1", "Lake Velm", "Lake Velm lies in Ordania, north of the town of Brisk."),
        Passage("b-1", "Mount Orr", "Mount Orr is a mountain of granite above the Ister valley."),
    ]
    dev = ["Lake Velm lies in Ordania.", "Mount Orr stands above Brisk."]
    found = report(Corpus("one", passages[:1]), dev, dev, final=Corpus("both", passages))
    assert json.loads(json.dumps(found)) is not None
    assert found["approximate search"] == {}  # too few pairs for one
    assert found["test"]["base"]["perplexity"] == found["dev"]["base"]
    assert found["test"]["knn-lm"]["tokens"] > 10


def test_articles_of_a_wikitext_file(tmp_path, monkeypatch, capsys):
    path = tmp_path / "text.txt"
    rest = "".join(f" = Article {n} = \n \n Text {n} . \n" for n in range(11))
    path.write_text(
        " \n = First one = \n \n It is 1 @,@ 000 years old , a well @-@ known one . \n"
        f" = = Part = = \n \n More . \n{rest}"
    )
    articles = wikitext(path)
    assert [article.title for article in articles[:2]] == ["First one", "Article 0"]
    assert articles[0].text == "It is 1,000 years old , a well-known one . = = Part = = More ."
    seen = {}
    monkeypatch.setattr(
        language,
        "report",
        lambda memory, dev, test, final: seen.update(
            memory=len(memory), dev=dev, test=test, final=len(final)
        ),
    )
    language.main(str(path))
    assert seen == {
        "memory": 8,
        "dev": ["Text 7 .", "Text 8 ."],
        "test": ["Text 9 .", "Text 10 ."],
        "final": 10,
    }
    path.write_text(rest)
    with pytest.raises(InputError, match="11 articles"):
        wikitext(path)
