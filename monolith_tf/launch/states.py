"""The states of tasks, their restart counts, and how a job ends."""

import dataclasses
import math
import signal
from typing import Literal

from monolith_tf.distribute import exits
from monolith_tf.distribute.sign_in import STEADY_SECS
from monolith_tf.distribute.task import Task

_LONGEST_BACKOFF_SECS = 60.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
      code: The launcher's exit code.
      message: Why the code is not 0; empty if it is.
      culprit: The task whose log has details, or None.
    """

    code: int
    message: str = ""
    culprit: str | None = None


@dataclasses.dataclass
class TaskState:
    """The state of a task.

    Attributes:
      task: The task.
      state: `waiting` for its start, `running`, `stopping` (it was asked to end, or is
        about to end), `ended`, or `lost`: it died too often.
      restarts: How often it was restarted.
    """

    task: Task
    state: Literal["waiting", "running", "stopping", "ended", "lost"] = "waiting"
    restarts: int = -1
    due: float = math.inf
    plan: list[tuple[float, signal.Signals]] = dataclasses.field(default_factory=list)

    @property
    def alive(self) -> bool:
        """Whether it has a process."""
        return self.state in ("running", "stopping")


@dataclasses.dataclass
class Retries:
    """Counts restarts in a row; the count resets after a long life."""

    begun: float = 0.0
    count: int = 0

    def next(self, now: float, limit: int) -> float | None:
        """Returns seconds to wait before the next restart; None if none is left."""
        if now - self.begun >= STEADY_SECS:
            self.count = 0
        if self.count >= limit:
            return None
        self.count += 1
        return min(2.0 ** (self.count - 1), _LONGEST_BACKOFF_SECS)


def how_it_ended(code: int) -> str:
    """Returns a description of how a process ended."""
    if code == exits.PS_LOST:
        return "lost a parameter server"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
