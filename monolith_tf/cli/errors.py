"""Exit codes, and the error for wrong use."""

DONE = 0
FAILED = 1
WRONG_USE = 2
INTERRUPTED = 130


class UsageError(Exception):
    """The command cannot run as it was typed."""
