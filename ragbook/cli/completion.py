"""Shell completion: `ragbook --print-completion SHELL` prints a script for the shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SHELLS = ("bash", "zsh", "tcsh")


class PrintCompletion(argparse.Action):
    """Prints the completion script of every command below the parser, and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, *_: Any):
        import shtab  # imported here, as only this option needs it

        for action in _actions(parser):
            if _names_a_path(action):
                folder = action.metavar == "DIR"
                action.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell=values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The options and arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _names_a_path(action: argparse.Action) -> bool:
    return action.type is Path or action.metavar in ("DIR", "NAME_OR_PATH", "SOURCE")
