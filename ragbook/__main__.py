"""``python -m ragbook`` is the command ``ragbook``.

Both come here prepared for an interrupt: the latter by ``ragbook_start``, the former by the first
lines of the package.
"""

import sys


def main() -> int:
    """Run the command line; returns its exit status."""
    try:
        from ragbook.cli import main
        from ragbook.cli.interrupts import run
        from ragbook.cli.lean import keep_lean
    except KeyboardInterrupt:  # of who calls this function without those preparations
        if sys.stderr is not None:
            sys.stderr.write("ragbook: interrupted\n")
        return 130
    keep_lean(sys.argv[1:])
    return run(main)


if __name__ == "__main__":
    sys.exit(main())
