"""Exit codes of a cluster's tasks, and their errors."""

DONE = 0
FAILED = 1
WRONG_USE = 2
PS_LOST = 75
"""Of the chief, when a parameter server is gone: restart both."""
CHIEF_GONE = 76
"""Of any other task, when there was no chief for `cluster.idle_timeout`."""
INTERRUPTED = 130


class ParameterServerLostError(RuntimeError):
    """A parameter server and its rows were lost."""


class StuckError(RuntimeError):
    """A worker is gone, and the remaining ones cannot continue without a restart."""


class ChiefGoneError(RuntimeError):
    """There was no chief for too long."""
