r"""The uncertainty of a score, and of a difference of scores, that comes from the choice of the
questions.

Questions are resampled, methods are not: these intervals say what other questions of the same kind
would give, not what another training run would.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_CHUNK = 4_000_000  # random numbers drawn at a time: 32 MB of them


@dataclass(frozen=True, slots=True)
class Paired:
    """Two methods on the same questions: `difference` is the mean of a - b with its 95% interval,
    `p` the two-sided p-value of "a and b are exchangeable on every question"."""

    difference: float
    ci95: tuple[float, float]
    p: float


def bootstrap_ci(values: ArrayLike, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95% percentile-bootstrap interval of the mean of `values` [n], one a question.

    (Efron and Tibshirani 1993, section 13.3.) The same seed gives the same interval. Raises
    ValueError if there is no value or one is not finite.
    """
    low, high = bootstrap_intervals(np.asarray(values, dtype=float)[:, None], resamples, seed)[0]
    return float(low), float(high)


def mean_ci(values: Sequence[float]) -> dict[str, Any]:
    """The mean of one value a question, with its 95 % bootstrap interval, as `mean` and `ci95`."""
    return {"mean": float(np.mean(values)), "ci95": list(bootstrap_ci(values))}


def paired_test(a: ArrayLike, b: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Paired:
    """Compare the scores `a` [n] and `b` [n] of two methods on the same n questions.

    The interval bootstraps the questions' differences; the p-value comes from flipping their signs
    at random, which changes nothing if the methods do not differ (Fisher's randomization test).
    Raises ValueError if the lengths differ, there is no value or one is not finite.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"paired scores must have the same shape, not {a.shape} and {b.shape}")
    return paired_tests((a - b)[:, None], resamples, seed)[0]


def bootstrap_intervals(values: np.ndarray, resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """:func:`bootstrap_ci` of every column of `values` [n, m], with the same resamples: [m, 2]."""
    n = _rows(values)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, values.shape[1]))
    for start, stop in _chunks(resamples, n):
        drawn = rng.integers(0, n, (stop - start, n))
        # How often each question was drawn, one row for each resample: [rows, n].
        drawn += n * np.arange(stop - start)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means[start:stop] = counts @ values / n
    return np.percentile(means, [2.5, 97.5], axis=0).T


def paired_tests(differences: np.ndarray, resamples: int = 10_000, seed: int = 0) -> list[Paired]:
    r""":func:`paired_test` of every column of `differences` [n, m].

    With \(T = \sum_i d_i\) and \(T^*_r\) the sum under the r-th of R random flips of signs,
    \[ p = \frac{1 + \#\{r : |T^*_r| \ge |T|\}}{1 + R}, \]
    where the 1 counts the data themselves as one of the flips, so that p is never 0 and the test
    never rejects too often.
    """
    n = _rows(differences)
    rng = np.random.default_rng(seed)
    observed = np.abs(differences.sum(axis=0))
    as_extreme = np.zeros(differences.shape[1], dtype=int)
    for start, stop in _chunks(resamples, n):
        signs = rng.integers(0, 2, (stop - start, n), dtype=np.int8) * 2.0 - 1.0
        # Equal sums may differ in their last digits if they were added in another order.
        as_extreme += (np.abs(signs @ differences) >= observed - 1e-9).sum(axis=0)
    return [
        Paired(float(difference), (float(low), float(high)), float(p))
        for difference, (low, high), p in zip(
            differences.mean(axis=0),
            bootstrap_intervals(differences, resamples, seed),
            (1 + as_extreme) / (1 + resamples),
            strict=True,
        )
    ]


def over_seeds(values: ArrayLike, resamples: int = 10_000, seed: int = 0) -> Paired:
    r"""The mean of `values` [S, n], one for each training seed and question, with an interval that
    holds for other seeds and other questions: both are resampled, independently of each other (the
    bootstrap of two crossed factors, Owen 2007).

    For a difference of two methods, give the differences seed by seed and question by question. `p`
    is then the two-sided p-value of "no difference", twice the smaller share of resampled means on
    either side of 0,
    \[ p = \min\left(1, \frac{2 + 2 \min(\#\{r : m^*_r \le 0\}, \#\{r : m^*_r \ge 0\})}{1 + R}
       \right). \]

    Raises ValueError if there is no value or one is not finite.
    """
    array = np.asarray(values, dtype=float)
    _rows(array)
    S, n = array.shape
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start, stop in _chunks(resamples, n):
        seeds = rng.multinomial(S, np.full(S, 1 / S), stop - start) / S  # [rows, S]
        drawn = rng.multinomial(n, np.full(n, 1 / n), stop - start) / n  # [rows, n]
        means[start:stop] = np.einsum("rs,sn,rn->r", seeds, array, drawn, optimize=True)
    low, high = np.percentile(means, [2.5, 97.5])
    least = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, (2 + 2 * least) / (1 + resamples))
    return Paired(float(array.mean()), (float(low), float(high)), p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple testing, in their own order (Holm 1979): if all hypotheses with
    an adjusted value below 0.05 are rejected, the probability of any false rejection is at most 5%.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


ALPHA = 0.05
"""Below it an adjusted p-value counts as a difference."""


def adjusted(paired: Sequence[Mapping[str, Any]], metric: str) -> dict[frozenset[str], float]:
    """The p-value of every two methods on one metric, adjusted for all of them (:func:`holm`).
    `paired` as in ``results.json``."""
    tests = [test for test in paired if test["metric"] == metric]
    pairs = [frozenset((test["a"], test["b"])) for test in tests]
    return dict(zip(pairs, holm([test["p"] for test in tests]), strict=True))


def cut_off(share: float, sign: str = "") -> str:
    """A share in percent, or a difference in points, with one decimal; further digits are dropped.

    Nothing is rounded up, and a difference is the same in either order. `sign="+"` shows both
    signs.
    """
    return f"{math.trunc(round(1000 * share, 6)) / 10 + 0.0:{sign}.1f}"


def _rows(values: np.ndarray) -> int:
    """Check that values [n, m] are finite and not empty, and return n."""
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError("scores must be finite numbers, one a question, of at least one question")
    return len(values)


def _chunks(resamples: int, n: int) -> Iterator[tuple[int, int]]:
    """The resamples in runs [start, stop) of about _CHUNK random numbers."""
    step = max(1, _CHUNK // n)
    for start in range(0, resamples, step):
        yield start, min(start + step, resamples)
