"""The pretended GPU of the tests does what a real one does."""

import pytest
import torch
from torch import nn

from tests.devices import OnGpu, pretended_gpu


def test_what_is_left_behind_is_noticed():
    with pretended_gpu() as gpu:
        there, here = torch.ones(2, 3, device=gpu), torch.ones(2, 3)
        for mixed in (
            lambda: there + here,
            lambda: here @ there.T,
            lambda: torch.cat([there, here]),
            lambda: there.masked_fill(here > 0, 0.0),
            lambda: there.gather(0, torch.zeros(1, 3, dtype=torch.long)),
            lambda: here[torch.zeros(2, dtype=torch.long, device=gpu)],
            lambda: nn.Linear(3, 2)(there),
            lambda: nn.Linear(3, 2).to(gpu)(here),
        ):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()
        with pytest.raises(TypeError, match="cpu"):
            there.numpy()
        assert (there + 1.0 + torch.tensor(1.0)).sum().item() == 18
        assert there[torch.tensor([0])].shape == (1, 3)  # a GPU takes indices of the CPU
        assert there.cpu().numpy().sum() == 6
        here.copy_(there * 2)
        there.copy_(here)
        assert there.tolist() == here.tolist() == [[2.0] * 3] * 2


def test_training_there_is_training_here():
    """Dropout, tied weights, AdamW and all, bit by bit."""

    def trained(device: str | torch.device) -> list[torch.Tensor]:
        torch.manual_seed(0)
        one, other = nn.Embedding(5, 4), nn.Linear(4, 5)
        other.weight = one.weight
        model = nn.Sequential(one, nn.Dropout(0.3), nn.Linear(4, 4), nn.GELU(), other).to(device)
        assert one.weight is other.weight
        adam = torch.optim.AdamW(model.parameters(), lr=0.1)
        ids = torch.tensor([0, 3, 2]).to(device)
        for _ in range(3):
            adam.zero_grad()
            nn.functional.cross_entropy(model(ids), ids).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            adam.step()
        return [p.detach().cpu() for p in model.parameters()]

    here = trained("cpu")
    with pretended_gpu() as gpu:
        assert isinstance(torch.zeros(1, device=gpu), OnGpu)
        there = trained(gpu)
    assert not any(isinstance(tensor, OnGpu) for tensor in there)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
