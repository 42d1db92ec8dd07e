"""Decides when something is due: after some steps, some time, or some event time."""

import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """Steps at equal distances.

    Attributes:
      steps: The distance.
      since: Step from which distances count, such as that at which a job began with
        other files; may be negative.
    """

    steps: int
    since: int = 0

    def next_step(self, step: int) -> int:
        """Returns the first of these steps after `step`."""
        return step + self.steps - (step - self.since) % self.steps


class Due:
    """Whether any of several intervals is over.

    Args:
      every_steps: Intervals of steps.
      every_secs: Seconds, or None.
      every_event_secs: Seconds of the time of events, or None.
      event_time: Returns the time of the newest event in seconds; 0 if not known.
    """

    def __init__(
        self,
        every_steps: Sequence[Interval] = (),
        every_secs: float | None = None,
        every_event_secs: float | None = None,
        event_time: Callable[[], float] = float,
    ) -> None:
        self._every_steps = tuple(every_steps)
        self._every_secs = every_secs
        self._every_event_secs = every_event_secs
        self._event_time = event_time
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begins all intervals now."""
        self._step = step
        self._secs = time.monotonic()
        self._event_secs = self._event_time()

    def next_step(self, step: int) -> int | None:
        """Returns the first step after `step` at which it is due; None if unknown."""
        if self._is_late():
            return step + 1
        return min((e.next_step(step) for e in self._every_steps), default=None)

    def is_due(self, step: int) -> bool:
        """Returns whether an interval that began at `restart` is over at a step."""
        reached = any(e.next_step(self._step) <= step for e in self._every_steps)
        return reached or self._is_late()

    def _is_late(self) -> bool:
        waited = time.monotonic() - self._secs
        if self._every_secs is not None and waited >= self._every_secs:
            return True
        if self._every_event_secs is None:
            return False
        now = self._event_time()
        if not self._event_secs:  # Events begin.
            self._event_secs = now
        return now - self._event_secs >= self._every_event_secs
