"""The tasks that take part in a job: one small file each in `<model_dir>/cluster`.

All tasks share the folder, so a task that is not found there was not started, or has
another `model_dir`. Clocks of two machines are never compared: a task lives as long as
the counter in its file keeps changing while it is watched.
"""

import contextlib
import json
import os
import pathlib
import platform
import time
from collections.abc import Callable
from importlib import metadata

from monolith_tf.distribute.heartbeat import Beat
from monolith_tf.types import JsonMapping

SILENT_SECS = 10.0
"""A task is gone if its file has not changed for this long."""
LAST_STATES = ("done", "ended", "failed", "ps_lost", "interrupted")
"""States of a task whose file does not change any more."""
REGROUPING = "regrouping"
"""State of the chief while a chief with other workers replaces it."""
SILENT_STATES = (*LAST_STATES, REGROUPING)

Entry = JsonMapping


class RosterError(ValueError):
    """Tasks do not fit together; the message names task and address."""


def versions() -> dict[str, str]:
    """Returns the versions that all tasks of a job must share."""
    import monolith_tf

    return {
        "monolith_tf": monolith_tf.__version__,
        "tensorflow": metadata.version("tensorflow"),
        "python": platform.python_version(),
    }


def folder(model_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of the files of a job's tasks."""
    return pathlib.Path(model_dir) / "cluster"


def read(model_dir: str | os.PathLike[str], name: str) -> Entry | None:
    """Returns the contents of a task's file, or None if there is no complete one."""
    path = folder(model_dir) / f"{name}.json"
    # Another machine may replace a file while it is read.
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return None


class FileBeats:
    """Reads beats from the tasks' files; see `heartbeat.Beats`.

    Args:
      model_dir: The job's folder.
      counts: Returns whether a beat counts, from the task's name and file.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        counts: Callable[[str, Entry], bool] = lambda name, entry: True,
    ) -> None:
        self._model_dir = model_dir
        self._counts = counts

    def latest(self, name: str) -> Beat | None:
        """Returns a task's last beat; None if there is none that counts."""
        entry = read(self._model_dir, name)
        if entry is None or not self._counts(name, entry):
            return None
        return Beat(str(entry.get("nonce")), int(entry.get("counter", 0)))


class Pulse:
    """Judges whether a task lives, by its counter and the observer's own clock."""

    def __init__(self, silent_secs: float = SILENT_SECS) -> None:
        self._silent_secs = silent_secs
        self._last: tuple[object, ...] | None = None
        self._changed = 0.0
        self.lives = False

    def look(self, entry: Entry | None) -> bool:
        """Reads a task's file; returns whether the task lives.

        The first counter that is seen does not show that it lives.
        """
        now = time.monotonic()
        if entry is None:
            self.lives = False
            return False
        identity = entry.get("incarnation"), entry.get("nonce")
        seen = (*identity, entry.get("counter"))
        if self._last is None:
            self._last, self._changed = seen, now
        elif seen != self._last:
            self._last, self._changed = seen, now
            self.lives = True
        elif now - self._changed > self._silent_secs:
            self.lives = False
        return self.lives

    @property
    def quiet_secs(self) -> float:
        """Seconds since the counter changed."""
        return time.monotonic() - self._changed
