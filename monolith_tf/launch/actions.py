"""The actions that a supervisor requests."""

import dataclasses
import signal


@dataclasses.dataclass(frozen=True)
class Start:
    """Start the process of a task."""

    name: str


@dataclasses.dataclass(frozen=True)
class Send:
    """Send a signal to the process of a task."""

    name: str
    signal: signal.Signals


@dataclasses.dataclass(frozen=True)
class Say:
    """Show the user a message."""

    text: str


Action = Start | Send | Say
