"""The one error that is the user's to mend."""


class InputError(ValueError):
    """Bad input: the message is one clear sentence that says what was wrong and what to do.

    Where a file is at fault, the message names it and, as far as there are lines, the line. The
    command line prints the message on standard error and exits with status 2.
    """
