"""Chapter 6's checks: what is right passes, and plausible mistakes and what is missing do not."""

import pytest
import torch
from exercises import fid as check


def unwritten(*_):
    raise NotImplementedError


def packed(states, mask):
    real = mask.flatten() == 1
    owner = torch.arange(len(mask)).repeat_interleave(mask.shape[1])
    return states.flatten(0, 1)[real], owner[real]


def with_padding(states, mask):
    return states.flatten(0, 1), torch.arange(len(mask)).repeat_interleave(mask.shape[1])


def by_token(states, mask):
    fused, owner = packed(states.transpose(0, 1), mask.T)
    return fused, owner


def by_position(states, mask):
    return packed(states, mask)[0], torch.arange(int(mask.sum()))


def summed(scores, owner, k):
    return torch.zeros(k).index_add(0, owner, scores.softmax(0))


def each_by_itself(scores, owner, k):
    return torch.ones(k) / k


def of_scores(scores, owner, k):
    return torch.zeros(k).index_add(0, owner, scores).softmax(0)


def averaged(scores, owner, k):
    counts = torch.bincount(owner, minlength=k)
    means = summed(scores, owner, k) / counts.clamp_min(1)
    return means / means.sum()


def by_hand(scores, targets):
    return (scores.softmax(-1) - targets.softmax(-1)) / len(scores)


RIGHT = {
    "pack": packed,
    "shares": summed,
    "crossover": lambda length, width: 6 * width // length + 1,
    "gradient": by_hand,
}
WRONG = {
    "pack": (with_padding, by_token, by_position),
    "shares": (each_by_itself, of_scores, averaged),
    "crossover": (
        lambda length, width: -(-6 * width // length),  # equal is not greater
        lambda length, width: 12 * width // length + 1,
    ),
    "gradient": (
        lambda s, t: -by_hand(s, t),
        lambda s, t: len(s) * by_hand(s, t),
        lambda s, t: (s - t) / len(s),
        lambda s, t: (s.flatten().softmax(0) - t.flatten().softmax(0)).view_as(s) / len(s),
    ),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_called_right(name, capsys):
    getattr(check, name)(RIGHT[name])
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n, wrongs in WRONG.items() for w in wrongs])
def test_a_mistake_gets_a_hint(name, wrong, capsys):
    getattr(check, name)(wrong)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_missing_is_called_so(name, capsys):
    getattr(check, name)(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"
