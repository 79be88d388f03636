"""Measures two or more sides in turn, in one run, on a machine that others may be using.

The sides take turns, so that what slows the machine down slows all of them. CPU seconds (user and
system) count the work, whatever else runs; wall-clock seconds are given beside them.
"""

from __future__ import annotations

import math
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Measured = dict[str, list[tuple[float, float]]]
"""For each side (CPU seconds, wall-clock seconds) of every round."""


def processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def in_turn(sides: Mapping[str, Callable[[], Any]], rounds: int) -> Measured:
    """Call every side once a round, each round beginning with another; this process's time."""
    found: Measured = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            cpu, wall = time.process_time(), time.perf_counter()
            sides[name]()
            found[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return found


def processes_in_turn(sides: Mapping[str, Sequence[str]], rounds: int) -> Measured:
    """Run every side's command once a round; the time of its whole process."""
    found: Measured = {name: [] for name in sides}
    for _ in range(rounds):
        for name, command in sides.items():
            before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - wall
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            found[name].append((cpu, wall))
    return found


def median(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the two values between which the true one lies with at least 93 %, by the
    binomial distribution; with five values these are the least and the greatest."""
    ordered, n = sorted(values), len(values)
    out = 0
    while 2 * sum(math.comb(n, i) for i in range(out + 2)) / 2**n <= 0.07:
        out += 1
    return statistics.median(ordered), ordered[out], ordered[n - 1 - out]


def show(found: Measured, base: str, scale: float = 1.0, unit: str = "s") -> None:
    """Print every side's medians with intervals, and its share of the base's CPU seconds: the
    median over the rounds, in each of which both were measured."""
    for name, rounds in found.items():
        cells = [median([each[kind] * scale for each in rounds]) for kind in (0, 1)]
        shown = "   ".join(f"{mid:9.3f} {unit} [{low:.3f}, {high:.3f}]" for mid, low, high in cells)
        ratios = [own[0] / other[0] for own, other in zip(rounds, found[base], strict=True)]
        mid, low, high = median(ratios)
        print(f"  {name:<28} {shown}   {mid:.2f} [{low:.2f}, {high:.2f}]", flush=True)


def heading(what: str, base: str) -> None:
    """Print what is measured, on what, and what the columns are."""
    print(f"{what}; {processor()}")
    print(f"  median CPU and wall-clock time, and CPU time as a multiple of {base!r}")
