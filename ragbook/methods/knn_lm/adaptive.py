r"""kNN-LM with a weight of its own for each context, instead of one weight for all.

The memory deserves weight where near neighbours were found and agree on the next token; elsewhere
the model does. A logistic regression on features that do not depend on the next token (He et al.
2021 use a small network),

\[ \lambda(x) = \sigma(w \cdot f(x) + b), \]

is fitted to held-out text by the likelihood of the interpolation itself, equation 3 of
`ragbook.methods.knn_lm.answers` with \(\lambda(x)\) for \(\lambda\). Its features \(f\) come from
the nearest neighbours and from the model's own distribution; no target token is among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NEAREST, TEMPERATURE = 32, 10.0
"""How many neighbours the features use, and the temperature of their weights there."""

FEATURES = (
    "log of the squared distance to the nearest key",
    "log of the squared distance to the last of the nearest keys",
    "log of how many tokens the nearest 4 name",
    "log of how many tokens the nearest keys name",
    "largest share of the nearest keys' weight that one token has",
    "their weight for the token that the model expects",
    "entropy of the model's distribution, nats",
    "log-probability of the token that the model expects",
)

PENALTY = 0.03
"""Default factor of half the squared weights in the loss, nats a token. It keeps lambda near one
fixed value where there are few tokens. This value was the best of 0.001 to 0.3 on MiniWiki's dev
articles, cross-fitted; with a text of your own, compare some values by `cross_fitted`."""


def features(
    distances: Tensor, values: Tensor, entropy: Tensor, expected: Tensor, expectation: Tensor
) -> Tensor:
    """The `FEATURES` of N contexts, none of which depends on the next token.

    Parameters
    ----------
    distances: [N, k], squared L2 distances of the neighbours, nearest first.
    values: int64 [N, k], the token that followed each.
    entropy: [N], of the model's distribution, nats.
    expected: int64 [N], the token that the model finds most probable.
    expectation: [N], the log-probability of that token, nats.

    Returns
    -------
    float32 [N, len(FEATURES)].
    """
    near, named = distances[:, :NEAREST], values[:, :NEAREST]
    near = near.clamp_max(torch.finfo(near.dtype).max)  # padding has the distance inf
    weights = torch.softmax(-near / TEMPERATURE, -1)
    same = named[:, :, None] == named[:, None, :]
    # True for a neighbour whose token no nearer neighbour has.
    first = ~(same & torch.ones_like(same[0]).tril(-1)).any(-1)
    columns = (
        near[:, 0].log1p(),
        near[:, -1].log1p(),
        first[:, :4].sum(-1).log(),
        first.sum(-1).log(),
        (same * weights[:, None, :]).sum(-1).amax(-1),
        ((named == expected[:, None]) * weights).sum(-1),
        entropy,
        expectation,
    )
    return torch.stack([column.float() for column in columns], -1)


@dataclass(frozen=True)
class AdaptiveLambda:
    """A fitted regression: called with features [N, F], it gives their weights, float32 [N]."""

    mean: np.ndarray  # float64 [F], of the features it was fitted on
    scale: np.ndarray  # float64 [F], their standard deviations
    weights: np.ndarray  # float64 [F], of the standardized features
    bias: float

    def __call__(self, features: Tensor) -> Tensor:
        """lambda(x) of each context, in (0, 1)."""
        standard = (features.double().numpy() - self.mean) / self.scale
        return torch.from_numpy(_sigmoid(standard @ self.weights + self.bias)).float()


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def fit(
    features: Tensor, lm_log_probs: Tensor, knn_log_probs: Tensor, penalty: float = PENALTY
) -> AdaptiveLambda:
    """The regression under which held-out tokens are the most probable.

    Parameters
    ----------
    features: [N, F].
    lm_log_probs, knn_log_probs: [N], log p_LM and log p_kNN of the tokens that did follow, nats;
        -inf is allowed in the second.
    penalty: factor of half the squared weights (of the standardized features) in the loss.
    """
    from scipy.optimize import minimize

    raw = features.double().numpy()
    mean, scale = raw.mean(0), np.maximum(raw.std(0), 1e-6)
    standard = (raw - mean) / scale
    # p_kNN / p_LM, bounded so that one token that the model finds nearly impossible cannot decide
    # the fit alone.
    ratio = (knn_log_probs - lm_log_probs).double().clamp_max(50).exp().numpy()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """The mean of -log(p / p_LM) plus the penalty, and the gradient of both."""
        weights, bias = parameters[:-1], parameters[-1]
        lam = _sigmoid(standard @ weights + bias)
        gain = 1 - lam + lam * ratio
        slope = -(ratio - 1) / gain * lam * (1 - lam) / len(lam)
        value = -np.log(gain).mean() + penalty / 2 * weights @ weights
        return value, np.append(slope @ standard + penalty * weights, slope.sum())

    found = minimize(loss, np.zeros(raw.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return AdaptiveLambda(mean, scale, found[:-1], float(found[-1]))


def cross_fitted(
    features: Sequence[Tensor],
    lm_log_probs: Sequence[Tensor],
    knn_log_probs: Sequence[Tensor],
    penalty: float = PENALTY,
) -> list[Tensor]:
    """lambda(x) of each document's contexts, by a regression fitted to the other documents.

    Parameters
    ----------
    features, lm_log_probs, knn_log_probs: as in `fit`, one tensor a document, two documents or
        more.

    Returns
    -------
    float32 [N] for each document.
    """
    out = []
    for held in range(len(features)):
        parts = [
            torch.cat([one for at, one in enumerate(column) if at != held])
            for column in (features, lm_log_probs, knn_log_probs)
        ]
        out.append(fit(parts[0], parts[1], parts[2], penalty)(features[held]))
    return out
