"""Kills a training at every file operation; run by test_loop.py.

    python killed_trainings.py FOLDER [EVERY]

With a number EVERY, only at every so many-th operation. After every kill the checkpoint must be
whole, and the same training again must end with the weights and the state of one that was not
killed, with each row of its log once, and leave nothing else. Prints the number of kills; exits
with 1 and a sentence on the first breach.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from ragbook.training.loop import train, write_tensors
from ragbook.training.run import Run
from tests.killing import kill_everywhere
from tests.training.test_loop import problem

STEPS, SAVED, LOGGED = 100, 20, 50
WEIGHTS, STATE, LOG = "weights.safetensors", "work/run.state.safetensors", "work/run.log.jsonl"


def run(out: Path) -> None:
    """Train as the recipes do, and write what came of it."""
    one = Run(out, resume=True)
    one.begin()
    model, batch_loss, optimizer = problem()
    train("run", batch_loss, optimizer, STEPS, one.work, save_every=SAVED, progress=False)
    write_tensors(one.out / WEIGHTS, dict(model.state_dict()))


def check(out: Path, whole: Path) -> None:
    if (out / STATE).exists():
        load_file(str(out / STATE))  # or it raises
    run(out)
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {WEIGHTS, STATE, LOG}, "something is left over"
    for name in (WEIGHTS, STATE):
        ours, theirs = load_file(str(out / name)), load_file(str(whole / name))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), f"{name} has other numbers"
    steps = [json.loads(row)["step"] for row in (out / LOG).read_text().splitlines()]
    assert steps == list(range(LOGGED, STEPS + 1, LOGGED)), f"the log has {steps}"


def main(folder: Path, every: int) -> int:
    whole = folder / "whole"
    run(whole)  # on one thread, before the forks: or each child imports what it needs
    return kill_everywhere(folder, "out", run, lambda out: check(out, whole), every=every)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
