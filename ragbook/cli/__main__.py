"""``python -m ragbook.cli`` is the command ``ragbook``."""

import sys

from ragbook.cli import main

if __name__ == "__main__":
    sys.exit(main())
