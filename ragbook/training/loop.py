"""The loop that every recipe shares: float32 masters, in bfloat16 too, resumable, seeded.

Forward and backward passes use the model's own weights, on the model's device: in bfloat16 where
that is multiplied fastest. The optimiser keeps a float32 master of each weight, as small updates
would otherwise be rounded away. A recipe gives `batch_loss(step)`, whose random numbers may depend
only on `step` and the seed, so that a killed run goes on from its last checkpoint exactly as if
nothing had happened: on the same kind of device, that is. A run may go on on another device, whose
sums are rounded in another order, but not in another precision.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from ragbook.errors import InputError
from ragbook.files import remove_unfinished, whole_file, write_text
from ragbook.models.devices import least_precise, name_of
from ragbook.models.model_files import refusing

_MOMENTS = ("exp_avg", "exp_avg_sq")


class MasterAdamW:
    """AdamW over float32 masters of (possibly bfloat16) parameters, on their device.

    Parameters
    ----------
    groups: (parameters, peak learning rate) pairs; frozen parameters are left out.
    weight_decay: decoupled, on matrices only.
    """

    def __init__(
        self, groups: Iterable[tuple[Iterable[nn.Parameter], float]], weight_decay: float = 0.01
    ) -> None:
        self.parameters: list[nn.Parameter] = []
        self.masters: list[Tensor] = []
        torch_groups = []
        for parameters, rate in groups:
            for decayed in (True, False):
                chosen = [p for p in parameters if p.requires_grad and (p.dim() > 1) == decayed]
                masters = [p.detach().float().clone() for p in chosen]
                self.parameters += chosen
                self.masters += masters
                if masters:
                    torch_groups.append(
                        {
                            "params": masters,
                            "lr": rate,
                            "peak": rate,
                            "weight_decay": weight_decay if decayed else 0.0,
                        }
                    )
        self.adam = torch.optim.AdamW(torch_groups, betas=(0.9, 0.98), eps=1e-6, fused=True)

    def step(self, scale: float, clip: float = 1.0) -> float:
        """Do one update at `scale` times the peak rates, with the gradient's norm clipped to
        `clip`; returns the norm before clipping."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            grad = parameter.grad
            master.grad = torch.zeros_like(master) if grad is None else grad.float()
            parameter.grad = None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, clip)
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * scale
        self.adam.step()
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                parameter.copy_(master)
                master.grad = None
        return float(norm)

    def tensors(self) -> dict[str, Tensor]:
        """Masters and moments by name, for a checkpoint."""
        out = {}
        for number, master in enumerate(self.masters):
            out[f"master.{number}"] = master
            for key, value in self.adam.state.get(master, {}).items():
                out[f"{key}.{number}"] = value
        return out

    def fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether these are all the tensors that `tensors` returns after an update, with their
        shapes, and finite."""
        wanted: dict[str, tuple[int, ...]] = {}
        for number, master in enumerate(self.masters):
            wanted |= {f"{key}.{number}": tuple(master.shape) for key in ("master", *_MOMENTS)}
            wanted[f"step.{number}"] = ()
        return {key: tuple(value.shape) for key, value in tensors.items()} == wanted and all(
            value.dtype == torch.float32 and bool(value.isfinite().all())
            for value in tensors.values()
        )

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that `tensors` returned."""
        with torch.no_grad():
            for number, master in enumerate(self.masters):
                master.copy_(tensors[f"master.{number}"])
                self.parameters[number].copy_(master)
                self.adam.state[master] = {
                    key: tensors[f"{key}.{number}"].to(master.device, copy=True)
                    for key in ("step", *_MOMENTS)
                    if f"{key}.{number}" in tensors
                }


def _read_state(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a checkpoint says of its run, and its tensors."""
    from safetensors import safe_open

    if not path.is_file():
        raise InputError(_DAMAGED.format(path, "it is no file"))
    with refusing(lambda said: _DAMAGED.format(path, said)):
        with safe_open(str(path), "pt") as file:
            meta = file.metadata() or {}
        return meta, load_file(str(path))


def _drop_rows_after(step: int, log: Path) -> None:
    """Take the rows of updates that a killed run did after its last checkpoint out of its log, with
    the half row that it may have ended in."""
    if log.is_file():
        rows = log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if row.endswith("\n") and json.loads(row)["step"] <= step]
        if kept != rows:
            write_text(log, "".join(kept))


_DAMAGED = "{} is damaged ({}); delete it, and the training begins this stage anew"


def write_tensors(path: Path, tensors: dict[str, Tensor], **metadata: str) -> None:
    """Write a file of tensors, from any device, with metadata; it appears whole or not at all."""
    here = {name: tensor.cpu() for name, tensor in tensors.items()}
    with whole_file(path) as unfinished:
        save_file(here, str(unfinished), metadata or None)


def schedule(step: int, steps: int, warmup: int) -> float:
    """The factor of the learning rate: linear warm-up, then a cosine down to 5 % of the peak.
    `step` counts from 0."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(
    name: str,
    batch_loss: Callable[[int], tuple[Tensor, dict[str, float]]],
    optimizer: MasterAdamW,
    steps: int,
    work: Path,
    warmup: int = 100,
    save_every: int = 250,
    fingerprint: str = "",
    evaluate: Callable[[int], dict[str, float]] | None = None,
    evaluate_every: int = 0,
    progress: bool | None = None,
) -> None:
    """Run `steps` updates, or resume them; checkpoints and a log are written into `work`.

    Parameters
    ----------
    batch_loss: step -> (scalar loss, figures to log); must depend on nothing but the step and
        the model.
    warmup: updates over which the learning rate rises.
    save_every: updates between two checkpoints.
    fingerprint: identifies the settings of the run; a checkpoint with another one is refused.
    evaluate: step -> further figures to log, called every `evaluate_every` updates.
    progress: whether to draw a bar on standard error; None draws one on terminals only.

    Raises
    ------
    InputError: `work` holds the checkpoint of a run with other settings or another precision.
    """
    work.mkdir(parents=True, exist_ok=True)
    state, log = work / f"{name}.state.safetensors", work / f"{name}.log.jsonl"
    for path in (state, log):
        remove_unfinished(work, path.name)  # of a run that was killed
    start, precision = 0, name_of(least_precise(optimizer.parameters))
    if state.exists():
        meta, tensors = _read_state(state)
        if "fingerprint" not in meta:
            raise InputError(_DAMAGED.format(state, "it does not say of which run it is"))
        if (before := meta.get("precision", precision)) != precision:
            raise InputError(
                f"{state} is the checkpoint of a run in {before}, and this one computes in "
                f"{precision}; go on with --precision {before} or name another folder"
            )
        if meta["fingerprint"] != fingerprint:
            raise InputError(
                f"{state} is the checkpoint of a run with other settings; "
                "name another folder or delete it"
            )
        if not re.fullmatch("[0-9]{1,15}", meta.get("step", "")) or not optimizer.fits(tensors):
            raise InputError(_DAMAGED.format(state, "it is not a state of this training"))
        optimizer.load(tensors)
        start = int(meta["step"])
    _drop_rows_after(start, log)

    def save(step: int) -> None:
        told = {"step": str(step), "fingerprint": fingerprint, "precision": precision}
        write_tensors(state, optimizer.tensors(), **told)

    clock, sums, count = time.perf_counter(), {}, 0
    bar = tqdm(
        range(start, steps),
        initial=start,
        total=steps,
        desc=name,
        disable=None if progress is None else not progress,
    )
    for step in bar:
        loss, figures = batch_loss(step)
        loss.backward()
        optimizer.step(schedule(step, steps, warmup))
        for key, value in figures.items():
            sums[key] = sums.get(key, 0.0) + value
        count += 1
        last = step + 1 == steps
        if (step + 1) % 50 == 0 or last:
            row: dict[str, float] = {"step": step + 1, "seconds": time.perf_counter() - clock}
            row |= {key: round(value / count, 4) for key, value in sums.items()}
            if evaluate and evaluate_every and ((step + 1) % evaluate_every == 0 or last):
                row |= evaluate(step + 1)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            bar.set_postfix({key: row[key] for key in figures})
            sums, count = {}, 0
        if (step + 1) % save_every == 0 or last:
            save(step + 1)
