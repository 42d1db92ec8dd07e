"""Heartbeats: how a task shows that it lives, and how others detect that it hangs.

Clocks of two machines are never compared. A beat is a number that keeps changing; a
judge reads it regularly, and measures the time between changes with its own clock.
"""

import contextlib
import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from typing import Protocol

BEAT_SECS = 2.0
"""How often a task beats."""

FILE_VARIABLE = "MONOLITH_TF_BEAT_FILE"
"""Names the file on the task's own machine that a liveness probe reads."""

# Time in which no task was heard counts at most this long: the judge, all tasks or
# their shared storage stalled, and no single task hangs.
_LONGEST_GAP_SECS = 3 * BEAT_SECS


@dataclasses.dataclass(frozen=True)
class Beat:
    """The state of a task at some time.

    Attributes:
      life: Differs between any two starts of the task.
      count: Changes with every beat.
    """

    life: str
    count: int


class Beats(Protocol):
    """Reads the beats of other tasks, by any means."""

    def latest(self, name: str) -> Beat | None:
        """Returns a task's last beat; None if there is none."""


class Judge:
    """Finds the tasks that are silent while others are heard.

    A task's silence grows by the time between two moments at which any task was heard,
    and by only a few seconds if that time is long. So a stall of the judge, of all
    tasks, or of their shared storage makes no task look lost.
    """

    def __init__(
        self,
        names: Iterable[str],
        beats: Beats,
        *,
        hang_timeout: float,
        witnesses: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a judge.

        Args:
          names: The tasks to judge. One is judged from its first beat on.
          beats: Where their beats are.
          hang_timeout: Seconds of silence after which a task hangs.
          witnesses: Tasks that are not judged, but whose beats show that time passes,
            such as the judge's own task.
          clock: The judge's own monotonic clock, in seconds.
        """
        self._beats = beats
        self._hang_timeout = hang_timeout
        self._clock = clock
        self._silent: dict[str, float] = dict.fromkeys(names, 0.0)
        self._witnesses = tuple(witnesses)
        self._last: dict[str, Beat] = {}
        self._heard_at = clock()

    def look(self) -> None:
        """Reads the current beats; call it about once a second."""
        heard = set()
        for name in (*self._silent, *self._witnesses):
            beat = self._beats.latest(name)
            if beat is None or beat == self._last.get(name):
                continue
            if name in self._last:  # The first one may be left by a dead process.
                heard.add(name)
            self._last[name] = beat
        if not heard:
            return
        now = self._clock()
        passed = min(now - self._heard_at, _LONGEST_GAP_SECS)
        self._heard_at = now
        for name in self._silent:
            if name in heard:
                self._silent[name] = 0.0
            elif name in self._last:
                self._silent[name] += passed

    def forget(self, name: str) -> None:
        """Judges a task from its next beat on, such as after a restart."""
        self._last.pop(name, None)
        self._silent[name] = 0.0

    def silent_secs(self, name: str) -> float:
        """Returns for how long a task has been silent while others were heard."""
        return self._silent[name]

    def hung(self) -> dict[str, Beat]:
        """Returns the tasks that hang, and the last beat of each."""
        return {
            name: self._last[name]
            for name, silent in self._silent.items()
            if silent > self._hang_timeout
        }


def beat_into_file(path: str | os.PathLike[str] | None = None) -> None:
    """Starts a thread that changes a file at every beat, for a local liveness probe.

    It does not use the shared storage: a stall of that is no reason to end the tasks.

    Args:
      path: The file; None takes `FILE_VARIABLE` of the environment, and does nothing if
        it is not set.
    """
    chosen = path or os.environ.get(FILE_VARIABLE)
    if not chosen:
        return
    file = pathlib.Path(chosen)

    def beat() -> None:
        count = 0
        while True:
            count += 1
            with contextlib.suppress(OSError):
                file.write_text(f"{os.getpid()} {count}\n", encoding="utf-8")
            time.sleep(BEAT_SECS)

    threading.Thread(target=beat, name="beat", daemon=True).start()
