"""Heartbeats: how a task shows that it lives, and how others judge that it hangs.

Nobody compares the clocks of two machines. A beat is a number that goes on changing; a
judge looks at it again and again, and counts its own time between what it sees.
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
"""Names the file on the task's own machine that a liveness probe looks at."""

# Time in which nobody was heard counts up to this: the judge, all tasks or the storage
# that they share stood still, and nobody can be blamed for that.
_LONGEST_GAP_SECS = 3 * BEAT_SECS


@dataclasses.dataclass(frozen=True)
class Beat:
    """What is known of a task at some time.

    Attributes:
      life: Differs between any two starts of the task.
      count: Changes with every beat.
    """

    life: str
    count: int


class Beats(Protocol):
    """Where beats of other tasks are found, however they travel."""

    def latest(self, name: str) -> Beat | None:
        """Returns a task's last beat; None where there is none."""


class Judge:
    """Finds the tasks that are silent while others are heard.

    A task's silence grows by the time between two moments at which any task was heard,
    and only by a few seconds where that time is long. So a stall of the judge, of all
    tasks, or of the storage between them makes nobody look lost.
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
          witnesses: Tasks that are not judged, but show by their beats that time goes
            on, such as the judge's own.
          clock: The judge's own clock, in seconds; it must never go back.
        """
        self._beats = beats
        self._hang_timeout = hang_timeout
        self._clock = clock
        self._silent: dict[str, float] = dict.fromkeys(names, 0.0)
        self._witnesses = tuple(witnesses)
        self._last: dict[str, Beat] = {}
        self._heard_at = clock()

    def look(self) -> None:
        """Takes in the present beats; to be called about once a second."""
        heard = set()
        for name in (*self._silent, *self._witnesses):
            beat = self._beats.latest(name)
            if beat is None or beat == self._last.get(name):
                continue
            if name in self._last:  # A process that is gone may have left a first one.
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
        """Judges a task from its next beat on, as when it is started again."""
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
    """Has a thread change a file at every beat, for a liveness probe on this machine.

    It does not touch what the tasks share: a stall of that is no reason to end them.

    Args:
      path: The file; None takes what the environment says, and does nothing where it
        says nothing.
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
