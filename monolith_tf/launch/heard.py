"""Exchanges state between a launcher and its tasks, through files."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

from monolith_tf.distribute import heartbeat
from monolith_tf.distribute import rivals
from monolith_tf.distribute import roster
from monolith_tf.distribute import watch
from monolith_tf.distribute.sign_in import SignedIn
from monolith_tf.training import job_lock

_LOOK_SECS = 1.0
_BEAT_SECS = 1.0
_SILENT_SECS = 3 * heartbeat.BEAT_SECS


@dataclasses.dataclass(frozen=True)
class _Signer:
    name: str = watch.LAUNCHER
    kind: str = "launcher"
    address: str | None = None


def sign_in(
    model_dir: str | os.PathLike[str], given_up: Callable[[], list[str]]
) -> SignedIn:
    """Writes the launcher's file and keeps it fresh.

    Args:
      model_dir: The job's folder.
      given_up: Returns the tasks that are not restarted.

    Raises:
      RosterError: If another launcher runs the job.
      JobRunsError: If a process trains in the folder without a launcher.
    """
    rival = rivals.find_rival(model_dir, watch.LAUNCHER)
    if rival is not None:
        raise _twice(model_dir, rival)
    job_lock.check(pathlib.Path(model_dir))
    return SignedIn(
        model_dir,
        _Signer(),
        beat_secs=_BEAT_SECS,
        latest=lambda: {"given_up": given_up()},
        state="running",
    )


def check_alone(model_dir: str | os.PathLike[str], signed_in: SignedIn) -> None:
    """Raises RosterError if another launcher signed in at the same time and wins."""
    rival = signed_in.rival
    if rival is not None and str(rival.get("nonce")) < signed_in.nonce:
        raise _twice(model_dir, rival)


def _twice(
    model_dir: str | os.PathLike[str], rival: roster.Entry
) -> roster.RosterError:
    return roster.RosterError(
        f"Another launcher already runs the job of {model_dir}: process "
        f"{rival.get('pid')} on {rival.get('host')}. End it first, or give this job "
        "another `model_dir`."
    )


class Heard:
    """Reads the tasks' files about once a second.

    Attributes:
      hung: The tasks whose processes hang, as of the last `look`.
      ps_lost: Whether the chief reports that a parameter server is lost.
      trains: Whether the chief trains, so it writes a checkpoint when interrupted.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        names: Iterable[str],
        *,
        hang_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes it.

        Args:
          model_dir: The job's folder.
          names: The tasks.
          hang_timeout: Seconds of silence after which a task hangs.
          clock: The launcher's own clock.
        """
        self.hung: list[str] = []
        self.ps_lost = False
        self.trains = False
        self._model_dir = model_dir
        self._names = tuple(names)
        self._pids: Mapping[str, int] = {}
        self._clock = clock
        self._due = clock()
        # The launcher's own beats do not count: if all tasks are stopped together, a
        # user did it, and none of them hangs.
        self._judge = heartbeat.Judge(
            self._names,
            roster.FileBeats(model_dir, self._is_present),
            hang_timeout=hang_timeout,
            clock=clock,
        )

    def look(self, pids: Mapping[str, int], *, at_once: bool = False) -> None:
        """Reads the tasks' files.

        Args:
          pids: Task name -> process id, of the running tasks.
          at_once: Whether to read even if the last time was a moment ago.
        """
        self.hung = []
        if self._clock() < self._due and not at_once:
            return
        self._due = self._clock() + _LOOK_SECS
        self._pids = pids
        entries = {name: self._entry(name) for name in self._names}
        self._judge.look()
        for name, entry in entries.items():
            # A task that starts, ends, or restarts itself does not beat.
            if entry is None or entry.get("state") in roster.SILENT_STATES:
                self._judge.forget(name)
        chief = entries.get("chief") or {}
        reported = chief.get("hung", {})
        self.hung = [
            name
            for name, entry in entries.items()
            if entry is not None
            and (name in self._judge.hung() or reported.get(name) == entry["nonce"])
        ]
        self._blame_servers_first()
        self.ps_lost = chief.get("state") == "ps_lost"
        self.trains = chief.get("state") == "running" and "step" in chief

    def _blame_servers_first(self) -> None:
        """Removes tasks that may be silent only because a parameter server is.

        The chief and workers wait for it inside TensorFlow. Once it is found to hang,
        they are judged from their next beats on.
        """
        servers = [name for name in self._names if name.startswith("ps-")]
        if all(self._judge.silent_secs(name) <= _SILENT_SECS for name in servers):
            return
        waiting = [name for name in self.hung if name not in servers]
        self.hung = [name for name in self.hung if name in servers]
        if self.hung:
            for name in waiting:
                self._judge.forget(name)

    def _entry(self, name: str) -> roster.Entry | None:
        entry = roster.read(self._model_dir, name)
        return entry if entry is not None and self._is_present(name, entry) else None

    def _is_present(self, name: str, entry: roster.Entry) -> bool:
        """Returns whether the running process wrote a file."""
        return name in self._pids and entry.get("pid") == self._pids[name]
