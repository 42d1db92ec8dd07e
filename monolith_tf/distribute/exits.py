"""Exit codes of a cluster's tasks, and the errors that stand for them."""

DONE = 0
FAILED = 1
WRONG_USE = 2
PS_LOST = 75
"""The chief's, when a parameter server is gone: start both again."""
CHIEF_GONE = 76
"""Any other task's, when there was no chief for `cluster.idle_timeout`."""
INTERRUPTED = 130


class ParameterServerLostError(RuntimeError):
    """A parameter server went away, and its rows with it."""


class StuckError(RuntimeError):
    """A worker is gone, and those that are left cannot go on before a new start."""


class ChiefGoneError(RuntimeError):
    """There was no chief for too long."""
