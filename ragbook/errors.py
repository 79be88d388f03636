"""The error that is raised for a user's mistake."""


class InputError(ValueError):
    """Bad input: the message is one clear sentence that says what was wrong and what to do.

    If a file has a fault, the message names the file and, if it has lines, the line. The command
    line prints the message on standard error and exits with status 2.
    """
