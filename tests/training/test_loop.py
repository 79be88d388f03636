"""The training loop: a killed run goes on as if nothing had happened."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ragbook.errors import InputError
from ragbook.training.loop import MasterAdamW, schedule, train
from tests.kills import kills_of


def problem():
    """A small regression whose batches depend on the step alone."""
    torch.manual_seed(0)
    model = nn.Linear(8, 4).bfloat16()
    target = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))

    def batch_loss(step):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        loss = (model(x.bfloat16()).float() - x @ target.T).square().mean()
        return loss, {"loss": loss.item()}

    return model, batch_loss, MasterAdamW([(list(model.parameters()), 0.05)])


class Killed(Exception):
    pass


def test_a_killed_run_ends_bit_for_bit_like_an_undisturbed_one(tmp_path):
    whole, batch_loss, optimizer = problem()
    train("run", batch_loss, optimizer, 40, tmp_path / "a", save_every=7, progress=False)

    model, batch_loss, optimizer = problem()

    def dies(step):
        if step == 24:
            raise Killed
        return batch_loss(step)

    with pytest.raises(Killed):
        train("run", dies, optimizer, 40, tmp_path / "b", save_every=7, progress=False)
    model, batch_loss, optimizer = problem()
    steps = []

    def counted(step):
        steps.append(step)
        return batch_loss(step)

    train("run", counted, optimizer, 40, tmp_path / "b", save_every=7, progress=False)
    assert steps == list(range(21, 40))
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    states = [load_file(str(tmp_path / name / "run.state.safetensors")) for name in "ab"]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_it_learns_and_logs(tmp_path):
    _, batch_loss, optimizer = problem()
    train("run", batch_loss, optimizer, 200, tmp_path, warmup=10, progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run.log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [50, 100, 150, 200]
    assert rows[-1]["loss"] < 0.1 * rows[0]["loss"]


def test_another_runs_checkpoint_is_refused(tmp_path):
    _, batch_loss, optimizer = problem()
    train("run", batch_loss, optimizer, 5, tmp_path, fingerprint="one", progress=False)
    with pytest.raises(InputError, match="other settings"):
        train("run", batch_loss, optimizer, 5, tmp_path, fingerprint="two", progress=False)


@pytest.mark.parametrize(
    "damage",
    ["cut", "missing", "shape", "kind", "infinite", "step", "no metadata", "empty", "pipe"],
)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path, damage):
    _, batch_loss, optimizer = problem()
    train("run", batch_loss, optimizer, 5, tmp_path, progress=False)
    path = tmp_path / "run.state.safetensors"
    tensors, told = load_file(str(path)), {"step": "5", "fingerprint": "", "precision": "bfloat16"}
    if damage == "missing":
        del tensors["exp_avg.1"]
    elif damage == "shape":  # it could be copied into any shape
        tensors["master.0"] = torch.zeros(1)
    elif damage == "kind":
        tensors["master.0"] = tensors["master.0"].to(torch.int64)
    elif damage == "infinite":
        tensors["exp_avg_sq.0"] /= 0
    elif damage == "step":
        told["step"] = "-1"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        save_file(tensors, str(path), None if damage == "no metadata" else told)
    _, batch_loss, optimizer = problem()
    before = [parameter.clone() for parameter in optimizer.parameters]
    with pytest.raises(InputError, match=r"is damaged .*; delete it"):
        train("run", batch_loss, optimizer, 9, tmp_path, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.parameters, strict=True))


def test_masters_keep_updates_that_bfloat16_would_round_away():
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([([weight], 1e-4)], weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones_like(weight)
        optimizer.step(1.0)
    assert weight.item() == pytest.approx(0.99, abs=0.004)  # one step alone would round to 1


def test_the_schedule_rises_then_falls():
    rates = [schedule(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.01)


def test_a_run_killed_anywhere_goes_on_and_leaves_nothing():
    kills, said = kills_of("training/killed_trainings.py", "5", timeout=600)
    assert not said
    assert kills >= 5, "the run was killed at too few points to mean anything"
