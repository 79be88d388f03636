"""The command ``ragbook`` begins here, with nothing to import, so that an interrupt finds it ready.

From the handler below on, an interrupt ends the program with status 130 and without a traceback.
What comes before is not in our hands: Python's own start, `site` with the `.pth` files of the
environment, and the script that the installer wrote, until it has found this module. Python may
show a traceback of its own there. Nothing has been read or written by then.

The module is beside the package, for its first line would otherwise be the package's. It takes
`_signal`, which Python has loaded at its start, and not `signal`, which imports for a while.
"""

import os
from _signal import SIGINT, default_int_handler, getsignal, signal  # pyright: ignore

if getsignal(SIGINT) is default_int_handler:  # else the caller wants interrupts to be ignored
    signal(SIGINT, lambda *_: os._exit(130))


def main() -> int:
    """Run the command line; returns its exit status."""
    from ragbook.__main__ import main

    return main()
