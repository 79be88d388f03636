"""``python -m ragbook.cli`` is the command ``ragbook``."""

import sys

from ragbook.cli import main
from ragbook.cli.interrupts import run

if __name__ == "__main__":
    sys.exit(run(main))
