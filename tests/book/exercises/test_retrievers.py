"""The checks of chapter 2's exercises pass what is right and refuse plausible mistakes."""

import math

import numpy as np
import pytest
from exercises import retrievers as check


def bm25(f, n, N, length, mean_length, factor=1.0, b=0.75, plus=1.0):
    idf = math.log(plus + (N - n + 0.5) / (n + 0.5))
    return factor * idf * f / (f + 1.2 * (1 - b + b * length / mean_length))


def with_the_factor(*given):
    return bm25(*given, factor=2.2)


def without_length(*given):
    return bm25(*given, b=0)


def with_negative_idf(*given):
    return bm25(*given, plus=0)


def raw_count(f, n, N, length, mean_length):
    return f * math.log(1 + (N - n + 0.5) / (n + 0.5))


def gradient(scores, g):
    weights = np.exp(scores - scores.max())
    out = weights / weights.sum()
    out[g] -= 1
    return out


def softmax(scores, g):
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def ascent(scores, g):
    return -gradient(scores, g)


def of_the_batch(scores, g):
    return gradient(scores, g) / len(scores)


def overflowing(scores, g):
    out = np.exp(scores) / np.exp(scores).sum()
    out[g] -= 1
    return out


def fusion(rankings, start=1, constant=60):
    fused = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start):
            fused[name] = fused.get(name, 0) + 1 / (constant + rank)
    return fused


def from_zero(rankings):
    return fusion(rankings, start=0)


def without_the_constant(rankings):
    return fusion(rankings, constant=0)


def last_ranking_only(rankings):
    return {name: 1 / (60 + rank) for ranking in rankings for rank, name in enumerate(ranking, 1)}


def in_all_rankings(rankings):
    both = set.intersection(*map(set, rankings))
    return {name: score for name, score in fusion(rankings).items() if name in both}


def unwritten(*_):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [(check.bm25, bm25), (check.gradient, gradient), (check.fusion, fusion)],
)
def test_what_is_right_passes(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (check.bm25, with_the_factor),
        (check.bm25, without_length),
        (check.bm25, with_negative_idf),
        (check.bm25, raw_count),
        (check.gradient, softmax),
        (check.gradient, ascent),
        (check.gradient, of_the_batch),
        (check.gradient, overflowing),
        (check.fusion, from_zero),
        (check.fusion, without_the_constant),
        (check.fusion, last_ranking_only),
        (check.fusion, in_all_rankings),
    ],
)
def test_a_mistake_is_refused_with_a_hint(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize("verdict", [check.bm25, check.gradient, check.fusion])
def test_the_unwritten_one_is_not_right(verdict, capsys):
    verdict(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"
