"""``python -m ragbook`` is the command ``ragbook``, which begins here."""

import sys


def main() -> int:
    """Run the command line; returns its exit status.

    Even the import of what parses the command line takes a moment, in which the user may interrupt
    it.
    """
    try:
        from ragbook.cli import main

        return main()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("ragbook: interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
