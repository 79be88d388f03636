r"""Losses of a dual encoder: pure functions of the scores of B questions under P passages.

Row i holds \(s_{ij} = \text{sim}(x_i, z_j)\), times the scale of the training. The right passage of
question i is in column \(g_i\), and \(N_i\) are the columns that count as its negatives. A passage
that might be right too is neither: it is not in \(N_i\) and has no effect on the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(scores: Tensor, gold: Tensor, negatives: Tensor) -> Tensor:
    r"""DPR's loss (Karpukhin et al. 2020, equation 2), averaged over the questions:

    \[ -\log \frac{\exp s_{i g_i}}{\exp s_{i g_i} + \sum_{j \in N_i} \exp s_{ij}}. \]

    Its gradient by the scores is softmax minus one-hot: every negative contributes in proportion to
    its probability.

    Parameters
    ----------
    scores: float [B, P].
    gold: int64 [B], the column of each question's right passage.
    negatives: bool [B, P], False in each row's gold column.

    Returns
    -------
    A scalar, nats.
    """
    return functional.cross_entropy(_counted(scores, gold, negatives), gold)


def hinge(scores: Tensor, gold: Tensor, negatives: Tensor, margin: float = 1.0) -> Tensor:
    r"""The triplet loss with each question's hardest negative, averaged over the questions:

    \[ \max\bigl(0,\; m - s_{i g_i} + \max_{j \in N_i} s_{ij}\bigr). \]

    A question whose right passage scores higher by at least the margin \(m\) has no gradient.
    Parameters as in `cross_entropy`; returns a scalar.
    """
    hardest = scores.masked_fill(~negatives, -torch.inf).max(1).values
    right = scores.gather(1, gold[:, None]).squeeze(1)
    return (margin - right + hardest).clamp_min(0).mean()


def accuracy(scores: Tensor, gold: Tensor, negatives: Tensor) -> float:
    """The share of questions whose right passage scores higher than all negatives; parameters as in
    `cross_entropy`."""
    return float((_counted(scores, gold, negatives).argmax(1) == gold).float().mean())


LOSSES = {"cross-entropy": cross_entropy, "hinge": hinge}


def _counted(scores: Tensor, gold: Tensor, negatives: Tensor) -> Tensor:
    """The scores, with -inf where a passage is neither right nor a negative."""
    right = functional.one_hot(gold, scores.shape[1]).bool()
    return scores.masked_fill(~(negatives | right), -torch.inf)
