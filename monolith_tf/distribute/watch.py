"""The chief's watch over the other tasks: which hang, are gone, or are back."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from absl import logging

from monolith_tf.distribute import exits
from monolith_tf.distribute import heartbeat
from monolith_tf.distribute import roster
from monolith_tf.distribute import sign_in
from monolith_tf.distribute.task import Task

LAUNCHER = "launcher"
"""The name of the file of the launcher, which starts and restarts the tasks."""

_LOOK_SECS = 1.0
_LEAVE_SECS = 20.0


class Launcher:
    """What a launcher, if one runs, reports to the chief."""

    def __init__(self, model_dir: str) -> None:
        self._model_dir = model_dir
        self._pulse = roster.Pulse()
        self._entry: roster.Entry | None = None

    def look(self) -> None:
        """Reads its file."""
        self._entry = roster.read(self._model_dir, LAUNCHER)
        self._pulse.look(self._entry)

    @property
    def lives(self) -> bool:
        """Whether a launcher runs; it then decides which tasks are given up."""
        return self._pulse.lives

    @property
    def given_up(self) -> frozenset[str]:
        """The tasks that it does not restart."""
        if not self.lives or self._entry is None:
            return frozenset()
        return frozenset(self._entry.get("given_up", ()))


class Watch:
    """Watches the other tasks in its own thread.

    The main thread may wait forever, inside TensorFlow, for a task that hangs. So this
    thread also ends the process if a parameter server is lost and the main thread does
    not end it.

    Attributes:
      lost: Which parameter servers are lost; empty while none is.
      change: Why the chief should restart with other workers; empty while it should
        not.
      without: The workers for which the next chief should not wait.
    """

    def __init__(
        self,
        task: Task,
        model_dir: str,
        signed_in: sign_in.SignedIn,
        members: Mapping[str, roster.Entry],
        *,
        hang_timeout: float,
        explain: Callable[[str], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a watch that is not started.

        Args:
          task: The chief's task.
          model_dir: The job's folder.
          signed_in: The chief's file.
          members: Task name -> its file when it signed in, of those that take part.
          hang_timeout: Seconds of silence after which a task hangs.
          explain: Returns the message for `lost` when this thread ends the process;
            None never ends it.
          clock: The chief's own clock, in seconds.
        """
        self.lost = ""
        self.change = ""
        self.without: list[str] = []
        self._model_dir = model_dir
        self._signed_in = signed_in
        self._members = members
        self._hang_timeout = hang_timeout
        self._explain = explain
        self._servers = [o for o in task.others() if o.kind == "ps"]
        self._workers = [
            o for o in task.others() if o.kind == "worker" and o.name in members
        ]
        self._left_out = {
            o.name: roster.Pulse() for o in task.others() if o.name not in members
        }
        self._back_since: dict[str, float] = {}
        self._launcher = Launcher(model_dir)
        self._reported: dict[str, str] = {}
        self._judge = heartbeat.Judge(
            members,
            roster.FileBeats(model_dir),
            hang_timeout=hang_timeout,
            witnesses=[task.name],
            clock=clock,
        )
        self._clock = clock
        self._ended = threading.Event()

    def start(self) -> None:
        """Starts to check, about once a second."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Ends the watch, unless a parameter server is lost."""
        self._ended.set()

    def give_up_gone(self) -> None:
        """Requests a change if workers are gone for so long that none replaces them.

        It does not if no other worker is left, or if a launcher runs, which decides.
        """
        gone = [
            other.name
            for other in self._workers
            if self._judge.silent_secs(other.name) > 2 * self._hang_timeout
        ]
        if not self.change and not self._launcher.lives:
            self._change(f"{_listed(gone)} gone", going=gone)

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_SECS):
            self.look()
            if self.lost:
                self._leave()
                return

    def look(self) -> None:
        """Reads the tasks' files."""
        self._judge.look()
        self._launcher.look()
        self._report_hung_workers()
        self._find_lost_servers()
        self._find_change()

    def _report_hung_workers(self) -> None:
        hung = self._judge.hung()
        now = {o.name: hung[o.name].life for o in self._workers if o.name in hung}
        if now == self._reported:
            return
        for other in self._workers:
            if other.name in now.keys() - self._reported.keys():
                logging.warning(
                    "%s at %s was silent for %g s, `cluster.hang_timeout`, while other "
                    "tasks were not: it hangs, or its machine is gone. It must be "
                    "ended and restarted.",
                    other.name,
                    other.address,
                    self._hang_timeout,
                )
            elif other.name in self._reported.keys() - now.keys():
                logging.info("%s is heard again.", other.name)
        self._reported = now
        with contextlib.suppress(OSError):
            self._signed_in.update(hung=now)

    def _find_lost_servers(self) -> None:
        hung = self._judge.hung()
        lost = []
        for other in self._servers:
            entry = roster.read(self._model_dir, other.name)
            where = f"{other.name} at {other.address}"
            if other.name in hung:
                lost.append(f"{where} (silent for {self._hang_timeout:g} s)")
            elif (
                entry is not None
                and entry.get("nonce") != (self._members[other.name]["nonce"])
            ):
                lost.append(where)
        if lost:
            self.lost = f"A parameter server was lost: {', '.join(lost)}."

    def _find_change(self) -> None:
        """Finds workers that are given up, and left-out workers that are back."""
        given_up = self._launcher.given_up
        going = [o.name for o in self._workers if o.name in given_up]
        back = []
        for name, pulse in self._left_out.items():
            if name in given_up or not pulse.look(roster.read(self._model_dir, name)):
                self._back_since.pop(name, None)
                continue
            since = self._back_since.setdefault(name, self._clock())
            if self._clock() - since > self._hang_timeout:
                back.append(name)
        self.change = ""
        why = f"{_listed(going)} given up" if going else f"{_listed(back)} back"
        self._change(why, going=going, back=back)

    def _change(
        self, why: str, *, going: Sequence[str] = (), back: Sequence[str] = ()
    ) -> None:
        """Requests a change if there is any, and a worker is left after it."""
        if (going or back) and len(going) < len(self._workers):
            self.without = [name for name in self._left_out if name not in back]
            self.without += going
            self.change = why

    def _leave(self) -> None:
        """Reports that a parameter server is lost, and ends the process if needed."""
        with contextlib.suppress(OSError):
            self._signed_in.update(state="ps_lost", message=self.lost)
        if self._explain is None:
            return
        time.sleep(_LEAVE_SECS)
        logging.error(
            "%s The main thread waits inside TensorFlow; ending the process.",
            self._explain(self.lost),
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exits.PS_LOST)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
