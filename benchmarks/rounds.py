"""Measures two or more sides in turn, in one run, on a machine that others may be using.

The sides take turns, so that what slows the machine down slows all of them. CPU seconds (user and
system) count the work, whatever else runs; wall-clock seconds are given beside them. What was
measured is one record: `compare` prints it, and `keep` stores it as a section of a JSON file, for
scripts that are called with `--store FILE`. The book's page on speed shows the stored sections.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.files import write_text
from ragbook.version import __version__

ROUNDS = 6
"""The fewest whose least and greatest values enclose the true median with 95 %; and with an even
number each of two sides begins equally often."""

Side = Callable[[], Any] | Sequence[str]
"""What is measured: a call, in this process, or a command, in a process of its own."""

Measured = dict[str, list[tuple[float, float]]]
"""For each side (CPU seconds, wall-clock seconds) of every round."""

Difference = tuple[str, float, float]
"""How equal the sides' results are: what differs between them, by how much, and how much may."""

Record = dict[str, Any]
"""What was measured, as it is printed and stored; see `record`."""


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _clocks(side: Side) -> tuple[float, float]:
    """CPU and wall-clock seconds that count for a side."""
    if callable(side):
        return time.process_time(), time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime, time.perf_counter()


def once(side: Side) -> tuple[float, float]:
    """CPU and wall-clock seconds of one call, or of a command's whole process."""
    before = _clocks(side)
    if callable(side):
        side()
    else:
        subprocess.run(side, check=True, stdout=subprocess.DEVNULL)
    cpu, wall = _clocks(side)
    return cpu - before[0], wall - before[1]


def in_turn(sides: Mapping[str, Side], rounds: int = ROUNDS) -> Measured:
    """Every side once a round, each round beginning with another; before the first, every side once
    without being measured."""
    for side in sides.values():
        once(side)
    found: Measured = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            found[name].append(once(sides[name]))
    return found


def median(values: Sequence[float]) -> dict[str, Any]:
    """The `median`, and as `ci95` the two values between which the true one lies with at least
    95 %, by the binomial distribution of how many values lie below it; four digits of each.

    Raises
    ------
    InputError: there are too few values for such an interval.
    """
    ordered, n = sorted(values), len(values)
    out = -1  # how many values at either end the interval leaves out
    while 2 * sum(math.comb(n, i) for i in range(out + 2)) <= 0.05 * 2**n:
        out += 1
    if out < 0:
        raise InputError(f"A 95 % interval needs {ROUNDS} rounds, not {n}.")
    middle, *ends = (
        float(f"{value:.4g}")
        for value in (statistics.median(ordered), ordered[out], ordered[n - 1 - out])
    )
    return {"median": middle, "ci95": ends}


def record(
    what: str,
    found: Measured,
    libraries: Sequence[str] = (),
    difference: Difference | None = None,
) -> Record:
    """What was measured: for every side the CPU and wall-clock seconds, and its CPU seconds as a
    multiple of the first side's, the median over the rounds, in each of which both were measured.

    Parameters
    ----------
    libraries: the packages that the first side consists of, whose versions are kept.
    difference: None where there are no results to compare.
    """
    import torch

    base, *_ = found
    sides = {}
    for name, rounds in found.items():
        ratios = [own[0] / other[0] for own, other in zip(rounds, found[base], strict=True)]
        sides[name] = {
            "cpu_seconds": median([cpu for cpu, _ in rounds]),
            "wall_seconds": median([wall for _, wall in rounds]),
            "times_the_base": median(ratios),
        }
    compared = None
    if difference is not None:
        of, apart, allowed = difference
        compared = {"of": of, "found": float(f"{apart:.2g}"), "allowed": allowed}
    return {
        "what": what,
        "base": base,
        "sides": sides,
        "rounds": len(found[base]),
        "difference": compared,
        "versions": {name: version(name) for name in libraries},
        "machine": {
            "date": date.today().isoformat(),
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": version("torch"),
            "ragbook": __version__,
        },
        "command": shlex.join(["python", *sys.argv]),
    }


def _shown(value: Mapping[str, Any], scale: float = 1, unit: str = "") -> str:
    middle, low, high = (scale * each for each in (value["median"], *value["ci95"]))
    return f"{middle:.3f} {unit} [{low:.3f}, {high:.3f}]".replace("  ", " ")


def show(measured: Record) -> None:
    """Print what was measured, on what, every side's medians with their intervals, and how equal
    the results are."""
    base, sides = measured["base"], measured["sides"]
    print(f"{measured['what']}; {measured['machine']['processor']}")
    print(f"  median CPU and wall-clock time, and CPU time as a multiple of {base!r}")
    scale, unit = (1, "s") if sides[base]["cpu_seconds"]["median"] >= 1 else (1000, "ms")
    for name, own in sides.items():
        cpu, wall = (_shown(own[f"{clock}_seconds"], scale, unit) for clock in ("cpu", "wall"))
        ratio = _shown(own["times_the_base"])
        print(f"  {name:<28} {cpu:>34}   {wall:>34}   {ratio}", flush=True)
    if (compared := measured["difference"]) is not None:
        equal = "equal" if compared["found"] <= compared["allowed"] else "NOT EQUAL"
        print(f"  {equal}: {compared['of']}: {compared['found']:g}", flush=True)


def compare(
    what: str,
    sides: Mapping[str, Side],
    libraries: Sequence[str] = (),
    difference: Callable[[], Difference] | None = None,
) -> Record:
    """Measure the sides in turn, the first of them being what the others are compared with, print
    the record and return it.

    Parameters
    ----------
    libraries: as for `record`.
    difference: called after the last round, in which every side left its results.
    """
    found = in_turn(sides)
    measured = record(what, found, libraries, difference() if difference else None)
    show(measured)
    return measured


def options() -> tuple[Path | None, list[str]]:
    """The FILE of `--store FILE` on the command line, or None, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--store", type=Path, metavar="FILE")
    known, others = parser.parse_known_args()
    return known.store, others


def keep(path: Path | None, name: str, measured: Record) -> None:
    """Store a record as the section `name` of a JSON file, in the place of an earlier one; the
    others stay. A section is a line. Does nothing without a path."""
    if path is None:
        return
    sections = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    sections[name] = measured
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{json.dumps(key)}: {json.dumps(sections[key])}" for key in sorted(sections)]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
