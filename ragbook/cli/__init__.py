"""The command line. It parses, calls, prints; every command imports what it needs when it runs."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from ragbook.cli.parser import new_parser
from ragbook.cli.status import BAD_INPUT, BROKEN_PIPE, INTERRUPTED, OK
from ragbook.cli.streams import open_closed_streams
from ragbook.errors import InputError
from ragbook.printable import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status. `argv` is the command line without the program's
    name."""
    open_closed_streams()
    # The models' libraries print what they do; these messages do not concern the user.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # no error where a terminal cannot print †
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except InputError as error:
        return _refuse(str(error))
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if not error.filename:  # the fault may be in standard output, on a full disk
            _discard_output()
        reason = error.strerror or str(error)
        return _refuse(f"{error.filename}: {reason}." if error.filename else f"{reason}.")
    except ModuleNotFoundError as error:
        if (error.name or "ragbook").split(".")[0] == "ragbook":
            raise
        return _refuse(f"The package {error.name} is missing; install it (see `ragbook doctor`).")
    except KeyboardInterrupt:
        print("ragbook: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = new_parser().parse_args(argv)
    except SystemExit:  # --help or --version has printed its text
        return OK
    return arguments.run(arguments)


def _discard_output() -> None:
    """Send further output to nowhere: Python flushes standard output once more at its exit, and
    this must not fail again."""
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(sentence: str) -> int:
    print(f"ragbook: {printable(' '.join(sentence.splitlines()))}", file=sys.stderr)
    return BAD_INPUT
