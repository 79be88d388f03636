"""Chapter 6's checks: what is right passes, and plausible mistakes and what is missing do not."""

import pytest
import torch
from exercises import fid as check


def unwritten(*_):
    raise NotImplementedError


def padded(queries, states, mask, hide=-torch.inf, after=False, by_passage=False):
    """The right answer, and by its keywords plausible wrong ones."""
    states, mask = states.flatten(1, 2), mask.flatten(1, 2)
    scores = torch.einsum("bd,bpd->bp", queries, states)
    if not after:
        scores = scores.masked_fill(mask == 0, hide)
    weights = scores.softmax(0 if by_passage else -1)
    if after:
        weights = weights * mask
    return torch.einsum("bp,bpd->bd", weights.nan_to_num(), states)


def with_padding(queries, states, mask):
    return padded(queries, states, torch.ones_like(mask))


def zero_scores(*given):
    return padded(*given, hide=0.0)


def masked_afterwards(*given):
    return padded(*given, after=True)


def over_the_batch(*given):
    return padded(*given, by_passage=True)


def struck(attention, owner, passage):
    left = attention * (owner != passage)
    return left / left.sum()


def not_normalised(attention, owner, passage):
    return attention * (owner != passage)


def shared_equally(attention, owner, passage):
    gone = attention[owner == passage].sum()
    others = owner != passage
    return (attention + gone / others.sum()) * others


def softmax_again(attention, owner, passage):
    return attention.masked_fill(owner == passage, -torch.inf).softmax(0)


def left_out(attention, owner, passage):
    return struck(attention, owner, passage)[owner != passage]


RIGHT = {
    "read": padded,
    "struck": struck,
    "crossover": lambda length, width: 6 * width // length + 1,
    "targets": lambda scores, answer: scores + answer,
}
WRONG = {
    "read": (with_padding, zero_scores, masked_afterwards, over_the_batch),
    "struck": (not_normalised, shared_equally, softmax_again, left_out),
    "crossover": (
        lambda length, width: -(-6 * width // length),  # equal is not greater
        lambda length, width: 12 * width // length + 1,
    ),
    "targets": (
        lambda scores, answer: answer,
        lambda scores, answer: scores,
        lambda scores, answer: (scores + answer).softmax(-1),
        lambda scores, answer: scores - answer,
        lambda scores, answer: answer - answer.logsumexp(-1, keepdim=True),
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
