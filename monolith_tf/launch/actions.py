"""What a supervisor asks for."""

import dataclasses
import signal


@dataclasses.dataclass(frozen=True)
class Start:
    """Start the process of a task."""

    name: str


@dataclasses.dataclass(frozen=True)
class Send:
    """Send the process of a task a signal."""

    name: str
    signal: signal.Signals


@dataclasses.dataclass(frozen=True)
class Say:
    """Show the user a message."""

    text: str


Action = Start | Send | Say
