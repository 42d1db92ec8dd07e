"""Signs a task in: writes its file, and keeps it fresh."""

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from monolith_tf.distribute import roster
from monolith_tf.distribute.heartbeat import BEAT_SECS
from monolith_tf.types import JsonDict

STEADY_SECS = 600.0
"""The restart count resets after a life of this length."""
RESTARTS_VARIABLE = "MONOLITH_TF_MAX_RESTARTS"
"""How often in a row a task may restart, if only the task itself counts it."""

_FIRST_BEAT_SECS = 0.25
_FIRST_BEATS = 20


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
        latest: Callable[[], roster.Entry] = dict,
        **values: object,
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
        self.rival: roster.Entry | None = None
        self._model_dir = model_dir
        self._name = task.name
        self._beat_secs = beat_secs
        self._latest = latest
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._values: JsonDict = {
            "nonce": self.nonce,
            "incarnation": self.nonce if task.kind == "chief" else "",
            "address": task.address or "",
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "versions": roster.versions(),
            "counter": 0,
            "starts": _starts_in_a_row(roster.read(model_dir, task.name)),
            "state": "joining" if task.kind == "chief" else "waiting",
            "message": "",
            **values,
        }
        roster.folder(model_dir).mkdir(parents=True, exist_ok=True)
        self._write()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check_starts(self) -> None:
        """Raises RosterError if the environment does not allow so many restarts."""
        limit = os.environ.get(RESTARTS_VARIABLE)
        restarts = self._values["starts"] - 1
        if limit and restarts > int(limit):
            raise roster.RosterError(
                f"{self._name} died {restarts} times in a row, each time within "
                f"{STEADY_SECS / 60:g} minutes; `--max-restarts` was {limit}. Its "
                "earlier logs say why."
            )

    def update(self, **values: object) -> None:
        """Changes values in the file at once."""
        with self._lock:
            self._values.update(values)
            self._write()

    def close(self, **values: object) -> None:
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
            found = roster.read(self._model_dir, self._name)
            if found is not None and found.get("nonce") != self.nonce:
                self.rival = found
            # A full disk must not end the task here; other writes report it.
            with contextlib.suppress(OSError), self._lock:
                self._values["counter"] += 1
                self._values.update(self._latest())
                self._write()

    def _write(self) -> None:
        path = roster.folder(self._model_dir) / f"{self._name}.json"
        temporary = path.with_name(f".{path.name}.{self.nonce}")
        temporary.write_text(json.dumps(self._values), encoding="utf-8")
        temporary.replace(path)


def _starts_in_a_row(former: roster.Entry | None) -> int:
    """Returns the number of starts since a task last ended well or lived long."""
    if former is None or former.get("state") in ("done", "ended", "failed"):
        return 1
    starts = int(former.get("starts", 0))
    if former.get("state") == roster.REGROUPING:
        return max(1, starts)
    is_steady = int(former.get("counter", 0)) * BEAT_SECS >= STEADY_SECS
    return 1 if is_steady or former.get("state") == "interrupted" else starts + 1
