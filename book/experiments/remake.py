"""Makes stored files again, in a folder of their own, and says what came out otherwise.

`python -m book.experiments.remake [NAME ...]` runs the steps of `book/results/made.json` for the
named files (`dpr`, `results`; by default all) with another folder in the place of `book/results`,
and compares each JSON file with the stored one, field by field. It prints the differences and ends
with status 1 if there is one or a step failed, else with 0. What was finished is not run again:
delete the folder to start anew. Numbers may differ by the tolerance, relative or absolute, whichever
is greater; what measures the machine (seconds, memory) is not compared. Tables and pictures are
drawn from what is compared, and it is only checked that they were made.

`--with PASSAGES=PATH` gives what some steps need; without it these files are left out, and what is
missing is said. `--list` prints what is stored, when it was made and how, `--table` the same as in
CONTRIBUTING.md. `--note NAME ...` writes the date of today into `made.json` for stored files that
were replaced.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeGuard

from ragbook.errors import InputError
from ragbook.files import write_json

from .made import MADE, Making, chosen, listing, makings, note, table

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.002
OF_THE_MACHINE = re.compile(
    r"seconds|_per_second|^qps_|peak_|^resident_|^times_|^hours_|MiB$"
    r"|^(machine|device|threads|command|ragbook|versions)$"
)
"""Fields that another machine, another path or another version fills otherwise."""
SHOWN = 20
"""How many differences of one file are printed."""

Difference = tuple[str, str, str]


def differences(
    stored: Any, remade: Any, tolerance: float = TOLERANCE, at: str = ""
) -> Iterator[Difference]:
    """The fields of two JSON values that differ: path, stored value and new one."""
    if isinstance(stored, dict) and isinstance(remade, dict):
        for key in [*stored, *(key for key in remade if key not in stored)]:
            where = f"{at} / {key}" if at else key
            if OF_THE_MACHINE.search(key):
                continue
            if key not in remade or key not in stored:
                found = ("there", "absent")
                before, now = found if key in stored else found[::-1]
                yield where, before, now
            else:
                yield from differences(
                    stored[key], remade[key], tolerance, where
                )
    elif isinstance(stored, list) and isinstance(remade, list):
        if len(stored) != len(remade):
            yield at, f"{len(stored)} values", f"{len(remade)} values"
            return
        for number, pair in enumerate(zip(stored, remade, strict=True)):
            yield from differences(*pair, tolerance, f"{at}[{number}]")
    elif _number(stored) and _number(remade):
        same = math.isclose(
            stored, remade, rel_tol=tolerance, abs_tol=tolerance
        )
        if not same and not (math.isnan(stored) and math.isnan(remade)):
            yield at, f"{stored:.6g}", f"{remade:.6g}"
    elif stored != remade:
        yield at, json.dumps(stored)[:60], json.dumps(remade)[:60]


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def content(path: Path) -> Any:
    """What is to be compared of a file: its JSON, or None if it is a table or a picture."""
    if path.name.endswith(".json"):
        return json.loads(path.read_text(encoding="utf-8"))
    if path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    return None


def resolved(
    making: Making, folder: Path, given: Mapping[str, str]
) -> list[str]:
    """The steps of a making with `folder` for the stored files and what a maintainer gave.

    Raises
    ------
    InputError: the steps need more than was given; the message says what.
    """
    missing = {
        need: what for need, what in making.needs.items() if need not in given
    }
    if missing:
        parts = "; ".join(f"{need}: {what}" for need, what in missing.items())
        how = " ".join(f"--with {need}=PATH" for need in missing)
        raise InputError(f"{making.name} needs {parts}. Give them by {how}.")
    places = {
        "book/results": str(folder),
        "build/out": str(folder / "out"),
        **{need: given[need] for need in making.needs},
    }
    pattern = re.compile(
        rf"(?<![\w/])({'|'.join(map(re.escape, places))})(?!\w)"
    )
    return [
        pattern.sub(lambda match: shlex.quote(places[match[1]]), step)
        for step in making.steps
    ]


def run(making: Making, steps: Sequence[str], folder: Path) -> None:
    """Run the steps that an earlier run has not finished.

    Raises
    ------
    CalledProcessError: a step failed; those before it are not run again.
    """
    (folder / "out").mkdir(parents=True, exist_ok=True)
    for name in making.reads:
        if not (folder / name).exists():
            shutil.copy(MADE.parent / name, folder / name)
    record = folder / "out" / f"{making.name}.done"
    done = json.loads(record.read_text()) if record.exists() else []
    if done != list(steps[: len(done)]):  # the steps are other ones now
        done = []
    here = str(Path(sys.executable).parent)
    environment = os.environ | {
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}"
    }
    for step in steps[len(done) :]:
        print(f"$ {step}", flush=True)
        subprocess.run(step, shell=True, check=True, cwd=ROOT, env=environment)
        done.append(step)
        write_json(record, done)


def compared(
    making: Making, folder: Path, tolerance: float
) -> dict[str, list[Difference]]:
    """The differences of every file of a making from the stored one."""
    out = {}
    for name in making.files:
        if not (folder / name).exists():
            out[name] = [("the file", "there", "absent")]
            continue
        old, new = (content(place / name) for place in (MADE.parent, folder))
        out[name] = list(differences(old, new, tolerance))
    return out


def report(found: Mapping[str, Sequence[Difference]]) -> str:
    """All differences as a table, those of a file after one another."""
    rows: list[tuple[str, ...]] = [("file", "field", "stored", "made anew")]
    for name, each in found.items():
        rows += [(name, *one) for one in each[:SHOWN]]
        if len(each) > SHOWN:
            rows.append((name, f"and {len(each) - SHOWN} more", "", ""))
    wide = [max(len(row[at]) for row in rows) for at in range(4)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, wide, strict=True)
        ).rstrip()
        for row in rows
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m book.experiments.remake",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--folder", type=Path, default=Path("build/remade"))
    parser.add_argument(
        "--with", dest="given", action="append", default=[], metavar="NAME=PATH"
    )
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true")
    instead.add_argument("--table", action="store_true")
    instead.add_argument("--note", action="store_true")
    return parser


def _remake(arguments: argparse.Namespace) -> int:
    wanted = chosen(makings(MADE), arguments.names)
    if arguments.list or arguments.table:
        print((listing if arguments.list else table)(wanted))
        return 0
    if arguments.note:
        if not arguments.names:
            raise InputError("Name the stored files that were replaced.")
        changed = note(arguments.names, date.today(), MADE)
        print("noted:", ", ".join(changed) or "nothing, no file has changed")
        return 0
    given = {}
    for pair in arguments.given:
        name, equals, path = pair.partition("=")
        if not equals:
            raise InputError(f"--with wants NAME=PATH, not {pair!r}.")
        given[name] = path
    folder = arguments.folder.resolve()
    found: dict[str, list[Difference]] = {}
    for making in wanted:
        try:
            steps = resolved(making, folder, given)
        except InputError as missing:
            if arguments.names:
                raise
            print(f"left out: {missing}")
            continue
        try:
            run(making, steps, folder)
        except subprocess.CalledProcessError as error:
            found[making.name] = [("a step", "", f"status {error.returncode}")]
        else:
            found |= compared(making, folder, arguments.tolerance)
    print(f"tolerance {arguments.tolerance:g}, {len(found)} files")
    if not any(found.values()):
        print("no difference")
        return 0
    print(report(found))
    return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    try:
        return _remake(_parser().parse_args(arguments))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
