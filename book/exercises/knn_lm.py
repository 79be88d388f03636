"""Checks of chapter 3's exercises: the pairs of a text, the vote and the weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import exercise


@exercise
def pairs(
    make: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> None:
    """`make(states, tokens)` gives keys [n - 1, d] and values [n - 1]."""
    tokens = np.array([7, 3, 9, 5])
    states = np.array([[7, 0], [7, 3], [3, 9], [9, 5]], dtype=np.float32)
    keys, values = make(states, tokens)
    assert len(keys) == len(values) == 3, (
        "four tokens give three pairs: after the last token nothing follows, so "
        f"its state has no value; you returned {len(keys)} keys and "
        f"{len(values)} values"
    )
    assert np.array_equal(values, [3, 9, 5]), (
        "the value is the token that follows the context, so the first one is "
        f"token 1 of the text; you returned {np.asarray(values).tolist()}"
    )
    assert np.array_equal(keys, states[:3]), (
        "states[i] represents the context that ends with token i, and its value "
        "is token i + 1"
    )


@exercise
def vote(
    distribution: Callable[
        [np.ndarray, np.ndarray, np.ndarray, int, float], np.ndarray
    ],
) -> None:
    """`distribution(keys, values, query, vocab_size, temperature)` is p_kNN [V]."""
    import torch

    from ragbook.methods.knn_lm import knn_log_probs, squared_distances

    keys = np.array([[0, 0], [2, 0], [0, 2]], dtype=np.float32)
    values = np.array([0, 2, 2])

    def expected(query: np.ndarray, temperature: float) -> np.ndarray:
        distances = squared_distances(
            torch.from_numpy(query)[None], torch.from_numpy(keys)
        )
        log_p = knn_log_probs(
            distances, torch.from_numpy(values)[None], 4, temperature
        )
        return log_p[0].exp().numpy()

    def given(query: np.ndarray, temperature: float) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.asarray(distribution(keys, values, query, 4, temperature))

    near = np.zeros(2, dtype=np.float32)
    p = given(near, 8.0)
    assert p.shape == (4,), (
        f"one probability for each of the 4 tokens, not the shape {p.shape}"
    )
    assert np.isclose(p.sum(), 1, atol=1e-5), (
        f"the probabilities have to sum to 1, not {p.sum():.3f}"
    )
    assert p[2] > p[0], (
        "two neighbours have token 2 and their weights are added: with tau = 8 they "
        f"outvote the nearest neighbour; you gave {p.round(3).tolist()}"
    )
    assert np.allclose(p, expected(near, 8.0), atol=1e-5), (
        "the distances are squared and divided by the temperature: with tau = 8 the "
        "weights are 1, 0.607 and 0.607 before they are normalised; you gave "
        f"{p.round(3).tolist()}"
    )
    far = np.array([100, 0], dtype=np.float32)
    p = given(far, 8.0)
    assert np.allclose(p, expected(far, 8.0), atol=1e-5), (
        "a query far away: all exponentials underflow to zero unless the smallest "
        f"distance is subtracted first; you gave {p.tolist()}"
    )


@exercise
def weight(
    best: Callable[[np.ndarray, np.ndarray, Sequence[float]], float],
) -> None:
    """`best(lm_log_probs, knn_log_probs, lams)` is the lambda with the lowest perplexity."""
    lams = [0.0, 0.1, 0.3, 0.5, 0.7, 1.0]
    with np.errstate(all="ignore"):
        lm, knn = np.log([0.01, 0.02, 0.3, 0.1]), np.log([0.5, 0, 0.6, 0])
        found = best(lm, knn, lams)
        assert found in lams, f"one of {lams} is to be chosen, and not {found}"
        assert found != 1, (
            "with lambda = 1 the second and the fourth token have probability zero, "
            "so the perplexity is infinite; average logarithms, not probabilities"
        )
        wanted = _tuned(lm, knn, lams)
        assert found == wanted, (
            f"perplexity is lowest with {wanted:g}, and you chose {found:g}: mix the "
            "probabilities, lambda for the memory and 1 - lambda for the model, and "
            "then take the logarithm"
        )
        rare = np.array([-2000.0, -3.0, -2.0])
        knn = np.array([-np.inf, -0.5, -0.4])
        found, wanted = best(rare, knn, lams), _tuned(rare, knn, lams)
        assert found == wanted, (
            "exp(-2000) is zero in floating point, and then every lambda seems to have "
            f"an infinite perplexity; stay in logarithms: {wanted:g} is best, and you "
            f"chose {found:g}"
        )


def _tuned(lm: np.ndarray, knn: np.ndarray, lams: Sequence[float]) -> float:
    """The same, by the mean log-probability of the mixture."""
    means = [
        np.logaddexp(np.log1p(-lam) + lm, np.log(lam) + knn).mean()
        for lam in lams
    ]
    return lams[int(np.argmax(means))]
