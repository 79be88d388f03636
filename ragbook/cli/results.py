"""The commands on finished comparisons, the folders that `ragbook compare --out` wrote."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ragbook.cli.options import (
    add_json,
    add_seed,
    at_least,
    names,
)
from ragbook.cli.parsers import add_command
from ragbook.cli.printing import print_json, print_table, say
from ragbook.cli.status import OK
from ragbook.errors import InputError
from ragbook.printable import printable

FORMS = ("squad", "kilt", "csv", "tidy-csv", "tidy-parquet")
"""Those of :mod:`ragbook.evaluation.exports`, which the parser need not import."""

LISTED = 10
"""How many changed answers of a method `ragbook diff` lists."""


def results(arguments: argparse.Namespace) -> int:
    """`ragbook results`: print a stored comparison again, or write it in another form."""
    from ragbook.evaluation import Comparison, exports

    form, out = arguments.format, arguments.out
    if (form is None) != (out is None):
        raise InputError(
            "A comparison is written in another form with both --format and --out; give both, or "
            "neither to print it."
        )
    if form is not None and arguments.json:
        raise InputError("--json prints results.json, and --format writes; give one of them.")
    comparison = Comparison.load(arguments.folder)
    if arguments.methods is not None:
        comparison = comparison.only(arguments.methods)
    if form is None:
        if arguments.json:
            print_json(comparison.results)
            return OK
        print_table(comparison.table())
        for sheet in (comparison.errors(), comparison.agreement(numbered=True)):
            if sheet is not None:
                print()
                print_table(sheet.terminal())
        return OK
    written = exports.write(comparison, form, out, overwrite=arguments.overwrite)
    if form == "csv" and (cells := exports.formulas(comparison)):
        say(
            f"{cells:,} cells begin with =, +, - or @, which a program for spreadsheets would take "
            "for formulas and run; they are written as they are, so import the file there as text."
        )
    for path in written:
        print(printable(path))
    return OK


def diff(arguments: argparse.Namespace) -> int:
    """`ragbook diff`: what changed from one stored comparison to another."""
    from ragbook.evaluation import Comparison
    from ragbook.evaluation.differences import (
        change_sheet,
        differences,
        score_sheet,
        shared_methods,
    )

    if arguments.all and arguments.limit is not None:
        raise InputError("--all lists every changed answer, --limit some; give one of them.")
    a, b = Comparison.load(arguments.a), Comparison.load(arguments.b)
    found = differences(a, b, _pairs(arguments) or shared_methods(a, b), arguments.seed)
    if arguments.json:
        if arguments.limit is not None:
            for entry in found["methods"]:
                entry["changed"] = entry["changed"][: arguments.limit]
        print_json({"a": str(arguments.a), "b": str(arguments.b), **found})
        return OK
    print(f"A: {printable(arguments.a)}")
    print(f"B: {printable(arguments.b)}")
    for setting in found["settings"]:
        values = f"{_readable(setting['a'])} in A, {_readable(setting['b'])} in B"
        print(f"{printable(setting['what'])}: {printable(values)}")
    if others := found["questions"]["other_answers"]:
        print(f"questions with other right answers in A and B: {others:,}")
    for sheet in (score_sheet(found), change_sheet(found)):
        if sheet is not None:
            print()
            print_table(sheet.terminal())
    limit = LISTED if arguments.limit is None else arguments.limit
    for entry in found["methods"]:
        _print_changes(entry, len(entry["changed"]) if arguments.all else limit)
    return OK


def _readable(value: Any) -> str:
    """A setting's value: each entry of nested lists once, and of hashes the beginnings, which tell
    them apart."""

    def entries(value: Any) -> list[str]:
        if isinstance(value, list | tuple):
            return [entry for part in value for entry in entries(part)]
        return [] if value in (None, "") else [str(value)]

    listed = ", ".join(dict.fromkeys(entries(value))) or "none"
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", listed)


def _pairs(arguments: argparse.Namespace) -> list[tuple[str, str]] | None:
    """The methods of A and B that --method or --methods names."""
    if arguments.method is not None and arguments.methods is not None:
        raise InputError("--method names one method of both, --methods one of each; give one.")
    if arguments.method is not None:
        return [(arguments.method, arguments.method)]
    if arguments.methods is None:
        return None
    if len(arguments.methods) != 2:
        raise InputError("--methods names two methods, one of A and one of B, as in fid,realm.")
    return [(arguments.methods[0], arguments.methods[1])]


def _print_changes(entry: dict[str, Any], limit: int) -> None:
    """The first changed answers of a method, those that became wrong first."""
    from ragbook.evaluation.differences import CHANGES

    changed = sorted(entry["changed"], key=lambda one: CHANGES.index(one["change"]))
    if not changed or not limit:
        return
    name = entry["a"] if entry["a"] == entry["b"] else f"{entry['a']} / {entry['b']}"
    print(f"\n{printable(name)}")
    for one in changed[:limit]:
        print(f"  {one['change']}: {printable(one['question'])} ({printable(one['id'])})")
        print(f"    A  {printable(one['a']) or '(nothing)'}")
        print(f"    B  {printable(one['b']) or '(nothing)'}")
    if len(changed) > limit:
        print(f"  and {len(changed) - limit:,} more; --all lists them")


def add_commands(top: Any) -> None:
    """Add `results` and `diff`."""
    command = add_command(
        top,
        "results",
        results,
        "print a comparison that `compare --out` stored, or write it in another form",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument(
        "--format",
        choices=FORMS,
        help="squad, kilt: predictions for these evaluation scripts, a file for each method; csv: "
        "a row for each question and method, exactly as answered (import it into spreadsheets as "
        "text: a cell that begins with = would run); tidy-csv, tidy-parquet: a row for each method "
        "and metric",
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE_OR_DIR",
        help="the file; of squad and kilt, the folder of the files",
    )
    command.add_argument("--methods", type=names, metavar="A,B", help="only these (default: all)")
    command.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_json(command)

    command = add_command(
        top,
        "diff",
        diff,
        "show what changed from one comparison that `compare --out` stored to another: scores with "
        "paired tests, and answers",
    )
    command.add_argument("a", type=Path, metavar="A", help="folder of the first")
    command.add_argument("b", type=Path, metavar="B", help="folder of the second")
    command.add_argument("--method", metavar="NAME", help="only this (default: all that both have)")
    command.add_argument(
        "--methods", type=names, metavar="X,Y", help="the first's X against the second's Y"
    )
    command.add_argument(
        "--limit",
        type=at_least(0),
        metavar="N",
        help=f"changed answers that are listed of a method (default: {LISTED}; with --json all)",
    )
    command.add_argument("--all", action="store_true", help="list all changed answers")
    add_seed(command)
    add_json(command)
