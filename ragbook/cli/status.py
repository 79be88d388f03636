"""The program's exit statuses."""

OK = 0
DAMAGED = 1  # `index verify` found damage
BAD_INPUT = 2  # one sentence on standard error says what was wrong
INTERRUPTED = 130  # what a shell says of a program that SIGINT has ended
BROKEN_PIPE = 141  # the program that read the output has ended
