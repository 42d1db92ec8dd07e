"""Exit codes, and the error that stands for wrong use."""

DONE = 0
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


class UsageError(Exception):
    """The command cannot be run as it was typed."""
