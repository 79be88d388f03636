"""The checks of chapter 11's exercises pass what is right and refuse plausible mistakes."""

import pytest
import torch
from exercises import one_pretrained_model as check


def attend(query, passages, scale=0.5):
    keys = torch.cat([k for k, _ in passages])
    values = torch.cat([v for _, v in passages])
    return torch.softmax(scale * keys @ query, 0) @ values


def unscaled(query, passages):
    return attend(query, passages, 1.0)


def mean_of_outputs(query, passages):
    return torch.stack([attend(query, [passage]) for passage in passages]).mean(0)


def best_passage_alone(query, passages):
    return attend(query, passages[:1])


def with_a_row(query, passages):
    return attend(query, passages)[None]


def by_place(query, passages):
    """Right in the order that is asked first, wrong in another."""
    swapped = passages if len(passages[0][0]) == 3 else passages[:1]
    return attend(query, swapped)


def layout(lengths, apart):
    total = sum(lengths)
    causal = torch.ones(total, total).tril().bool()
    if not apart:
        return causal, torch.arange(total)
    block = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    within = causal & (block[:, None] == block)
    return within, torch.cat([torch.arange(n) for n in lengths])


def not_causal(lengths, apart):
    mask, positions = layout(lengths, apart)
    return mask | mask.T, positions


def always_together(lengths, apart):
    return layout(lengths, False)


def always_apart(lengths, apart):
    return layout(lengths, True)


def positions_go_on(lengths, apart):
    return layout(lengths, apart)[0], torch.arange(sum(lengths))


def not_to_itself(lengths, apart):
    mask, positions = layout(lengths, apart)
    return mask.tril(-1), positions


def move(keys, by, frequencies):
    half = keys.shape[1] // 2
    first, second = keys[:, :half], keys[:, half:]
    cos, sin = torch.cos(by * frequencies), torch.sin(by * frequencies)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], 1)


def other_direction(keys, by, frequencies):
    return move(keys, -by, frequencies)


def neighbours_as_pairs(keys, by, frequencies):
    order = [0, 2, 1, 3]
    return move(keys[:, order], by, frequencies)[:, order]


def one_frequency(keys, by, frequencies):
    return move(keys, by, frequencies[:1])


def forwards_alone(keys, by, frequencies):
    return move(keys, abs(by), frequencies)


def in_one_row(keys, by, frequencies):
    return move(keys, by, frequencies).flatten()


def unwritten(*_):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("checked", "answer"), [(check.fused, attend), (check.layout, layout), (check.move, move)]
)
def test_right(checked, answer, capsys):
    checked(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("checked", "answer", "hint"),
    [
        (check.fused, unscaled, "square root"),
        (check.fused, mean_of_outputs, "not averaged"),
        (check.fused, best_passage_alone, "all three passages"),
        (check.fused, with_a_row, "shape (4,)"),
        (check.fused, by_place, "order"),
        (check.layout, not_causal, "later one"),
        (check.layout, always_together, "itself only"),
        (check.layout, always_apart, "first passage, too"),
        (check.layout, positions_go_on, "[0, 1, 0, 0, 1]"),
        (check.layout, not_to_itself, "attends to itself"),
        (check.move, other_direction, "other direction"),
        (check.move, neighbours_as_pairs, "one pair"),
        (check.move, one_frequency, "own frequency"),
        (check.move, forwards_alone, "turns them back"),
        (check.move, in_one_row, "stay so"),
    ],
)
def test_wrong(checked, answer, hint, capsys):
    checked(answer)
    said = capsys.readouterr().out
    assert said.startswith("Not right yet: ")
    assert hint in said


@pytest.mark.parametrize("checked", [check.fused, check.layout, check.move])
def test_unwritten(checked, capsys):
    checked(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"
