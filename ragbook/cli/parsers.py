"""A parser of one command, and how a command is added to a group of them."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from ragbook.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser that reports bad usage as other bad input: in one sentence, without a usage text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raise InputError with the message and where to read more."""
        raise InputError(f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


def subcommands(parser: argparse.ArgumentParser) -> Any:
    """A group of commands, of which one must be given."""
    return parser.add_subparsers(required=True, metavar="COMMAND", dest="command")


def add_command(group: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    """The parser of a new command of a group; `run` is its function, None for a group's own."""
    command = group.add_parser(name, help=summary, description=summary[:1].upper() + summary[1:])
    command.set_defaults(run=run, parser=command)
    return command
