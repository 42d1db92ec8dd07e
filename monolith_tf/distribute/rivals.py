"""Finds another process that is the same task of a job."""

import os
import socket
import time
from typing import Any

from monolith_tf.distribute import roster
from monolith_tf.distribute.heartbeat import BEAT_SECS
from monolith_tf.distribute.sign_in import SignedIn
from monolith_tf.distribute.task import Task


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
) -> roster.Entry | None:
    """Returns the file of another running process of a name; None if there is none.

    Waits for a little more than a beat if there is a file that looks fresh.
    """
    entry = roster.read(model_dir, name)
    if entry is None or entry.get("state") in roster.LAST_STATES:
        return None
    if entry.get("host") == socket.gethostname() and not _runs(entry.get("pid")):
        return None
    if entry.get("pid") == os.getpid() and entry.get("host") == socket.gethostname():
        return None  # This process itself, before it restarted itself.
    pulse = roster.Pulse()
    deadline = time.monotonic() + 2.5 * beat_secs
    while time.monotonic() < deadline:
        if pulse.look(roster.read(model_dir, name)):
            return entry
        time.sleep(beat_secs / 10)
    return None


def check_rival(task: Task, signed_in: SignedIn) -> None:
    """Raises RosterError if another process has signed in as this task since."""
    if signed_in.rival is not None:
        raise _twice(task, signed_in.rival)


def _twice(task: Task, entry: roster.Entry) -> roster.RosterError:
    return roster.RosterError(
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
