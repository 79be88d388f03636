"""An interrupt (Ctrl-C) ends the command with one line and status 130, whenever it comes.

`KeyboardInterrupt` alone cannot promise it. Raised while a library is being imported, it may become
an `ImportError` of C code, or a report that an exception was ignored; raised in a finalizer, it is
only reported; raised while an earlier one is handled, or while Python ends, nobody catches it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from ragbook.cli.status import INTERRUPTED

_LINE = "ragbook: interrupted\n"


def run(command: Callable[[], int]) -> int:
    """Run a command; returns its status, or 130 where an interrupt has stopped it.

    A first interrupt raises `KeyboardInterrupt`, so that the command puts away what it has begun.
    A second one, or one in the middle of an import, ends the program at once: whatever is written
    is made to survive that. After the command, an interrupt ends the program without a line.
    What ignores interrupts (a shell starts so what runs in its background) goes on doing so.
    """
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None):
        return command()
    interrupts = _Interrupts()
    sys.unraisablehook = interrupts.ignored
    try:
        signal.signal(signal.SIGINT, interrupts.handle)
        status = command()
        signal.signal(signal.SIGINT, _leave)
    except BaseException:
        if not interrupts.came:
            raise
        _end()  # an interrupt, as the library that it met has named it
    return INTERRUPTED if interrupts.came and status else status


class _Interrupts:
    """Whether one came, and what is done when one comes."""

    def __init__(self) -> None:
        self.came = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.came or _importing(frame):
            _end()
        self.came = True
        raise KeyboardInterrupt

    def ignored(self, unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is KeyboardInterrupt:
            _end()
        sys.__unraisablehook__(unraisable)


def _importing(frame: FrameType | None) -> bool:
    """Whether an import is under way where the interrupt came."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end() -> NoReturn:
    with suppress(OSError):  # of a standard error that is closed, or full
        os.write(2, _LINE.encode())
    _leave()


def _leave(*_: object) -> NoReturn:
    os._exit(INTERRUPTED)
