"""The commands on finished comparisons, the folders that `ragbook compare --out` wrote."""

from __future__ import annotations

import argparse

from ragbook.cli.printing import print_json, print_table, say
from ragbook.cli.status import OK
from ragbook.errors import InputError
from ragbook.printable import printable

FORMS = ("squad", "kilt", "csv", "tidy-csv", "tidy-parquet")
"""Those of :mod:`ragbook.evaluation.exports`, which the parser need not import."""


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
