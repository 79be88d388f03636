"""What the program exits with."""

OK = 0
DAMAGED = 1  # `index verify` found damage
BAD_INPUT = 2  # one sentence on standard error says what
INTERRUPTED = 130
BROKEN_PIPE = 141  # the reader of the output went away
