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
import secrets
import socket
import threading
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from importlib import metadata
from typing import Any
from typing import Protocol

from monolith_tf.distribute.heartbeat import BEAT_SECS
from monolith_tf.distribute.heartbeat import Beat
from monolith_tf.distribute.task import Task

SILENT_SECS = 10.0
"""A task counts as gone after so long without a change."""
LAST_STATES = ("done", "ended", "failed", "ps_lost", "interrupted")
"""States of a task whose file does not change any more."""
STEADY_SECS = 600.0
"""The restart count resets after a life of this length."""
RESTARTS_VARIABLE = "MONOLITH_TF_MAX_RESTARTS"
"""How often in a row a task may restart, if only the task itself counts it."""
REGROUPING = "regrouping"
"""State of the chief while a chief with other workers replaces it."""
SILENT_STATES = (*LAST_STATES, REGROUPING)

_FIRST_BEAT_SECS = 0.25
_FIRST_BEATS = 20

Entry = Mapping[str, Any]


class Signer(Protocol):
    """A task or a launcher that signs in."""

    @property
    def name(self) -> str:
        """The name of its file."""

    @property
    def kind(self) -> str:
        """Its kind, such as `chief`."""

    @property
    def address(self) -> str | None:
        """The address on which it listens, or None."""


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
        self._last: tuple[Any, ...] | None = None
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


class SignedIn:
    """This process' own file, which a thread refreshes.

    Attributes:
      nonce: Differs between any two starts of the task.
      rival: The file of another process that claims to be the same task, or None.
    """

    def __init__(
        self,
        model_dir: str | os.PathLike[str],
        task: Signer,
        *,
        beat_secs: float = BEAT_SECS,
        latest: Callable[[], Entry] = dict,
        **values: Any,
    ) -> None:
        """Writes the file and begins to refresh it.

        Args:
          model_dir: The job's folder.
          task: Which task this process is.
          beat_secs: How often to refresh.
          latest: Returns values that change over time; called at every beat.
          **values: Other initial values of the file.
        """
        self.nonce = secrets.token_hex(8)
        self.rival: Entry | None = None
        self._model_dir = model_dir
        self._name = task.name
        self._beat_secs = beat_secs
        self._latest = latest
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._values: dict[str, Any] = {
            "nonce": self.nonce,
            "incarnation": self.nonce if task.kind == "chief" else "",
            "address": task.address or "",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "versions": versions(),
            "counter": 0,
            "starts": _starts_in_a_row(read(model_dir, task.name)),
            "state": "joining" if task.kind == "chief" else "waiting",
            "message": "",
            **values,
        }
        folder(model_dir).mkdir(parents=True, exist_ok=True)
        self._write()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check_starts(self) -> None:
        """Raises RosterError if the environment does not allow so many restarts."""
        limit = os.environ.get(RESTARTS_VARIABLE)
        restarts = self._values["starts"] - 1
        if limit and restarts > int(limit):
            raise RosterError(
                f"{self._name} died {restarts} times in a row, each time within "
                f"{STEADY_SECS / 60:g} minutes; `--max-restarts` was {limit}. Its "
                "earlier logs say why."
            )

    def update(self, **values: Any) -> None:
        """Changes values in the file at once."""
        with self._lock:
            self._values.update(values)
            self._write()

    def close(self, **values: Any) -> None:
        """Writes a last time and stops refreshing."""
        self._ended.set()
        self._thread.join()
        self.update(**{**self._latest(), **values})

    def _pause_secs(self) -> float:
        """Returns the time between beats; the first beats are faster."""
        if self._values["counter"] < _FIRST_BEATS:
            return min(_FIRST_BEAT_SECS, self._beat_secs)
        return self._beat_secs

    def _beat(self) -> None:
        while not self._ended.wait(self._pause_secs()):
            found = read(self._model_dir, self._name)
            if found is not None and found.get("nonce") != self.nonce:
                self.rival = found
            # A full disk must not end the task here; other writes report it.
            with contextlib.suppress(OSError), self._lock:
                self._values["counter"] += 1
                self._values.update(self._latest())
                self._write()

    def _write(self) -> None:
        path = folder(self._model_dir) / f"{self._name}.json"
        temporary = path.with_name(f".{path.name}.{self.nonce}")
        temporary.write_text(json.dumps(self._values), encoding="utf-8")
        temporary.replace(path)


def _starts_in_a_row(former: Entry | None) -> int:
    """Returns the number of starts since a task last ended well or lived long."""
    if former is None or former.get("state") in ("done", "ended", "failed"):
        return 1
    starts = int(former.get("starts", 0))
    if former.get("state") == REGROUPING:
        return max(1, starts)
    is_steady = int(former.get("counter", 0)) * BEAT_SECS >= STEADY_SECS
    return 1 if is_steady or former.get("state") == "interrupted" else starts + 1


def check_alone(
    model_dir: str | os.PathLike[str], task: Task, *, beat_secs: float = BEAT_SECS
) -> None:
    """Checks that no other process is the same task of the same job.

    Waits for a little more than a beat if there is a file that looks fresh.

    Raises:
      RosterError: If there is one.
    """
    rival = find_rival(model_dir, task.name, beat_secs=beat_secs)
    if rival is not None:
        raise _twice(task, rival)


def find_rival(
    model_dir: str | os.PathLike[str], name: str, *, beat_secs: float = BEAT_SECS
) -> Entry | None:
    """Returns the file of another running process of a name; None if there is none.

    Waits for a little more than a beat if there is a file that looks fresh.
    """
    entry = read(model_dir, name)
    if entry is None or entry.get("state") in LAST_STATES:
        return None
    if entry.get("host") == socket.gethostname() and not _runs(entry.get("pid")):
        return None
    if entry.get("pid") == os.getpid() and entry.get("host") == socket.gethostname():
        return None  # This process itself, before it restarted itself.
    pulse = Pulse()
    deadline = time.monotonic() + 2.5 * beat_secs
    while time.monotonic() < deadline:
        if pulse.look(read(model_dir, name)):
            return entry
        time.sleep(beat_secs / 10)
    return None


def check_rival(task: Task, signed_in: SignedIn) -> None:
    """Raises RosterError if another process has signed in as this task since."""
    if signed_in.rival is not None:
        raise _twice(task, signed_in.rival)


def _twice(task: Task, entry: Entry) -> RosterError:
    return RosterError(
        f"Another process is already {task.name} of this job: process "
        f"{entry.get('pid')} on {entry.get('host')}, address {entry.get('address')}. "
        "End one of them, or give this one another `task.index` in `TF_CONFIG`."
    )


def _runs(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError):
        return True
    return True


def wait_for_all(
    model_dir: str | os.PathLike[str],
    task: Task,
    signed_in: SignedIn,
    *,
    timeout: float,
    optional: Callable[[], Collection[str]] = tuple,
    poll_secs: float = 0.2,
) -> dict[str, Entry]:
    """Waits until every worker and parameter server serves this chief.

    Args:
      model_dir: The job's folder.
      task: The chief's task.
      signed_in: The chief's file.
      timeout: Seconds to wait.
      optional: Returns the names of workers that need not come, if another one does.
      poll_secs: Seconds between checks.

    Returns:
      Task name -> contents of its file, for the tasks that serve.

    Raises:
      RosterError: If one is missing, failed, or has other versions or addresses.
    """
    deadline = time.monotonic() + timeout
    others = task.others()
    while True:
        check_rival(task, signed_in)
        found = {other.name: read(model_dir, other.name) for other in others}
        here = {}
        for other in others:
            entry = found[other.name]
            if entry is not None and entry.get("incarnation") == signed_in.nonce:
                _check_fits(other, entry)
                if entry.get("state") == "serving":
                    here[other.name] = entry
        spared = optional()
        missing = [o for o in others if o.name not in here and o.name not in spared]
        if not missing and any(o.kind == "worker" for o in others if o.name in here):
            return here
        if time.monotonic() > deadline:
            missing = missing or [o for o in others if o.name not in here]
            raise RosterError(
                "\n".join(_absent(o, model_dir, timeout) for o in missing)
            )
        time.sleep(poll_secs)


def _absent(other: Task, model_dir: str | os.PathLike[str], timeout: float) -> str:
    return (
        f"{other.name} at {other.address} did not sign in under {folder(model_dir)} "
        f"within {timeout:g} s: it is not running, or its `model_dir` is another "
        "folder. All tasks must share the same `model_dir`."
    )


def _check_fits(other: Task, entry: Entry) -> None:
    where = f"{other.name} at {other.address} (process {entry['pid']} on "
    where += f"{entry['host']})"
    if entry.get("state") == "failed":
        raise RosterError(f"{where} failed: {entry.get('message')}")
    if entry["address"] != other.address:
        raise RosterError(
            f"{where} has the address {entry['address']}. Give all tasks the same "
            "`cluster` in `TF_CONFIG`."
        )
    for name, version in versions().items():
        theirs = entry["versions"].get(name)
        if theirs != version and not _same_python(name, theirs, version):
            raise RosterError(
                f"{where} runs {name} {theirs}; the chief runs {version}. Install the "
                "same version everywhere."
            )


def _same_python(name: str, left: str, right: str) -> bool:
    """Returns whether two versions of Python differ at most in their patch level."""
    return name == "python" and left.split(".")[:2] == right.split(".")[:2]
