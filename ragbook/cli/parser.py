"""The commands and their options."""

from __future__ import annotations

import argparse

from ragbook.cli import commands, ranking, results, serving, stores, training
from ragbook.cli.completion import SHELLS, PrintCompletion
from ragbook.cli.parsers import Parser, subcommands
from ragbook.version import __version__


def new_parser() -> argparse.ArgumentParser:
    """The parser of all commands and options; it stores the command's function as `run`."""
    parser = Parser(
        prog="ragbook",
        description="One passage index, five ways to use it: kNN-LM, REALM, RAG-Sequence, "
        "RAG-Token and FiD, compared with the same reader without passages.",
    )
    parser.add_argument("--version", action="version", version=f"ragbook {__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        metavar="SHELL",
        help=f"print the completion script of a shell: {', '.join(SHELLS)}",
    )
    top = subcommands(parser)
    commands.add_asking(top)
    serving.add_commands(top)
    ranking.add_commands(top)
    results.add_commands(top)
    stores.add_commands(top)
    training.add_commands(top)
    commands.add_others(top)
    return parser
