"""Standard streams that were closed before the program began (`>&-`, `2>&-`).

Python has `None` in their place, which libraries do not expect; and the first file that is opened
would take the closed stream's number, so that whatever a library prints would go into it.
"""

from __future__ import annotations

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed_streams() -> None:
    """Put the null device in place of every standard stream that is closed."""
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            found = os.open(os.devnull, os.O_RDWR)  # the lowest free number, as a rule this one
            if found != number:
                os.dup2(found, number)
                os.close(found)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            stream = open(  # noqa: SIM115  # for the whole run
                number, mode, encoding="utf-8", errors="replace", closefd=False
            )
            setattr(sys, name, stream)
