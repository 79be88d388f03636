"""Stored changes, added to what training began with, give what it ended with."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ragbook.errors import InputError
from ragbook.models.changes import apply, are_changes, changed_names, changes, low_rank, part


def named(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(40, 30), nn.LayerNorm(30), nn.Linear(30, 3))


@given(st.integers(1, 8), st.integers(9, 20), st.integers(9, 20))
def test_a_matrix_of_rank_r_is_kept_exactly_by_r_factors(rank, rows, columns):
    torch.manual_seed(rows * columns + rank)
    change = torch.randn(rows, rank) @ torch.randn(rank, columns)
    left, right = low_rank(change, rank)
    assert (left.shape, right.shape) == ((rows, rank), (rank, columns))
    torch.testing.assert_close(left @ right, change, rtol=1e-3, atol=1e-3)


def test_no_other_factors_come_nearer():
    """The error is that of the singular values left out (Eckart and Young)."""
    torch.manual_seed(0)
    change = torch.randn(20, 30)
    left, right = low_rank(change, 5)
    left_out = torch.linalg.svdvals(change)[5:]
    assert ((left @ right - change) ** 2).sum().item() == pytest.approx(
        (left_out**2).sum().item(), rel=1e-4
    )


def test_changes_lead_from_one_model_to_the_other():
    before, after = network(0), network(1)
    after[1].load_state_dict(before[1].state_dict())  # which does not change
    stored = changes(named(before), named(after), 4)
    assert are_changes(stored)
    assert all(tensor.dtype == torch.bfloat16 for tensor in stored.values())
    assert changed_names(stored) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    # Only the first matrix is larger than its factors.
    assert {n for n in stored if not n.endswith(".change")} == {"0.weight.left", "0.weight.right"}
    apply(before, stored)
    for name in ("0.bias", "2.weight", "2.bias"):
        torch.testing.assert_close(named(before)[name], named(after)[name], rtol=0.02, atol=0.005)
    left, right = low_rank(named(after)["0.weight"] - named(network(0))["0.weight"], 4)
    torch.testing.assert_close(
        named(before)["0.weight"], named(network(0))["0.weight"] + left @ right, rtol=0, atol=0.01
    )


def test_changes_of_another_model_are_refused():
    stored = changes(named(network(0)), named(network(1)), 4)
    with pytest.raises(InputError, match=r"has no 2\.bias of the shape \[3\]"):
        apply(nn.Sequential(nn.Linear(40, 30)), stored)
    with pytest.raises(InputError, match=r"has no 0\.bias of the shape \[30\]"):
        apply(nn.Sequential(nn.Linear(40, 31), nn.LayerNorm(30), nn.Linear(30, 3)), stored)


def test_a_part_is_named_without_its_prefix():
    stored = {"encoder.a.left": torch.zeros(1), "encoder2.a.left": torch.ones(1)}
    assert list(part(stored, "encoder")) == ["a.left"]
    assert not are_changes({"bert.bias": torch.zeros(1)})
