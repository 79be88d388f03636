r"""Thorough decoding's second half: candidates are scored under the passages whose beams did not
propose them (Lewis et al. 2020, section 2.5).

The candidates are scored token by token and together, so that a prefix that several of them share
is computed once. Bounds leave out those that cannot win. As log-probabilities only fall while a
prefix grows, after s tokens

\[ \sum_{z \text{ known}} p(z \mid x)\, p(y \mid x, z) \;\le\; p(y \mid x) \;\le\;
   \sum_{z \text{ known}} p(z \mid x)\, p(y \mid x, z)
   + \sum_{z \text{ open}} p(z \mid x) \prod_{t \le s} p(y_t \mid x, z, y_{<t}). \]

A candidate is left out when its upper bound is below the lower bounds of as many others as are
wanted, so those that are wanted come out as if all had been scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ragbook.models.generator import Generator, Memory, pad_labels

ROWS = 256
"""How many prefixes are scored at a time, unless one question alone has more."""
MARGIN = 1e-3
"""By how many nats a bound has to be lower, so that rounding leaves nothing out."""

Given = dict[tuple[int, ...], Tensor]
"""From a candidate's tokens, without start and end, to log p(y | x, z), float32 [n]."""


def complete(
    reader: Generator[Any], memory: Memory, log_prior: Tensor, given: Sequence[Given], count: int
) -> None:
    """Replace each -inf among the candidates' log p(y | x, z) by its value, in place, at least for
    every question's `count` most probable candidates.

    Parameters
    ----------
    reader, memory: the generator, and its memory of B * n inputs.
    log_prior: log p(z | x), float32 [B, n]; -inf where a question has fewer passages.
    given: the candidates of each of the B questions.
    count: how many of each question's candidates are wanted.
    """
    for part in _parts(given, log_prior.shape[1]):
        _complete(reader, memory, log_prior, {b: given[b] for b in part}, count)


def _parts(given: Sequence[Given], n: int) -> Iterator[list[int]]:
    """Questions with about as many candidates, for which at most ROWS prefixes are open at once."""
    part: list[int] = []
    for b in sorted(range(len(given)), key=lambda b: len(given[b])):
        if part and (len(part) + 1) * len(given[b]) * n > ROWS:
            yield part
            part = []
        part.append(b)
    yield part


def _complete(
    reader: Generator[Any],
    memory: Memory,
    log_prior: Tensor,
    given: dict[int, Given],
    count: int,
) -> None:
    """`complete` for some questions, by their numbers."""
    n = log_prior.shape[1]
    owner = torch.tensor([b for b, union in given.items() for _ in union])
    answers = [(*tokens, reader.end) for union in given.values() for tokens in union]
    values = [own for union in given.values() for own in union.values()]
    labels, prior, known = pad_labels(answers), log_prior[owner], torch.stack(values)  # [C, n]
    missing = known.isneginf() & ~prior.isneginf()
    begun = torch.zeros_like(known)  # the log-probability of the tokens scored so far
    following = reader.continuation(memory)
    before: dict[tuple[int, tuple[int, ...]], int] = {}
    for t in range(labels.shape[1]):
        upper = torch.logsumexp(prior + torch.where(missing, begun, known), -1)
        missing &= (upper >= _least(owner, torch.logsumexp(prior + known, -1), count))[:, None]
        if not missing.any():
            break
        c, z = missing.nonzero().unbind(1)
        asked = [
            (row, answers[one][:t])
            for one, row in zip(c.tolist(), (owner[c] * n + z).tolist(), strict=True)
        ]
        rows: dict[int, dict[tuple[int, ...], None]] = {}
        for row, prefix in asked:
            rows.setdefault(row, {})[prefix] = None
        # Every row has the same number of prefixes; one with fewer repeats its first.
        width = max(map(len, rows.values()))
        shown = [
            (row, prefix)
            for row, own in sorted(rows.items())
            for prefix in [*own, *[next(iter(own))] * (width - len(own))]
        ]
        log_probs = following(
            torch.tensor([[reader.start, *prefix] for _, prefix in shown]),
            torch.tensor([row for row, _ in shown]),
            torch.tensor([before[row, prefix[:-1]] if t else 0 for row, prefix in shown]),
        )
        before = {key: at for at, key in enumerate(shown)}
        at = torch.tensor([before[key] for key in asked], device=log_probs.device)
        begun[c, z] += log_probs[at, labels[c, t].to(log_probs.device)].float().cpu()
        ended = missing & (labels[:, t] == reader.end)[:, None]
        known = torch.where(ended, begun, known)
        missing &= ~ended
    for own, row in zip(values, known, strict=True):
        own.copy_(row)


def _least(owner: Tensor, lower: Tensor, count: int) -> Tensor:
    """What a candidate has to reach, [C]: the `count`-th greatest lower bound of its question."""
    least = torch.full_like(lower, float("-inf"))
    for b in owner.unique():
        own = owner == b
        if own.sum() > count:
            least[own] = lower[own].topk(count).values[-1] - MARGIN
    return least
