"""Workers and parameter servers: they serve a chief until it is done."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any
from typing import NoReturn

import tensorflow as tf
from absl import logging

from monolith_tf import remote
from monolith_tf.distribute import exits
from monolith_tf.distribute import listening
from monolith_tf.distribute import rivals
from monolith_tf.distribute import roster
from monolith_tf.distribute import sign_in
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.distribute.task import Task
from monolith_tf.distribute.task import split_address

_POLL_SECS = 0.2
# Each handler of a remote call blocks a thread; with too few threads a server hangs.
_MIN_INTER_OP_THREADS = 16


class Member:
    """A task that serves chiefs: signs in, follows the chief, and decides when to end.

    Attributes:
      chief: Contents of the current chief's file; None before there is one.
    """

    def __init__(
        self,
        task: Task,
        model_dir: str,
        *,
        idle_timeout: float,
        latest: Callable[[], roster.Entry] = dict,
        **values: Any,
    ) -> None:
        """Signs in; arguments as for `sign_in.SignedIn`, and how long to wait.

        Raises:
          RosterError: If another process is the same task.
        """
        self._task = task
        self._model_dir = model_dir
        self._idle_timeout = idle_timeout
        rivals.check_alone(model_dir, task)
        self.signed_in = sign_in.SignedIn(model_dir, task, latest=latest, **values)
        self._pulse = roster.Pulse()
        self._alone_since = time.monotonic()
        self._incarnation = ""
        self.chief: roster.Entry | None = None

    def follow(self) -> bool:
        """Reads the chief's file; returns whether to continue.

        If another chief has taken over, the process restarts itself with the same
        command, so nothing of the old chief stays in memory.

        Raises:
          ChiefGoneError: If there was no chief for too long.
          RosterError: If another process has signed in as the same task.
        """
        rivals.check_rival(self._task, self.signed_in)
        self.chief = chief = roster.read(self._model_dir, "chief")
        lives = self._pulse.look(chief)
        if chief is not None and chief.get("incarnation") == self._incarnation:
            if chief.get("state") == "done":
                return False
            lives = lives and chief.get("state") in ("joining", "running")
        elif chief is not None and lives:
            if self._incarnation:
                logging.info("A new chief has taken over; restarting.")
                self.signed_in.close(state="ended")
                restart()
            self._incarnation = str(chief["incarnation"])
            self.signed_in.update(incarnation=self._incarnation, state="serving")
            logging.info("Serving the chief at %s.", chief.get("address"))
        if lives:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > self._idle_timeout:
            raise exits.ChiefGoneError(self._why_gone(chief))
        return True

    def _why_gone(self, chief: roster.Entry | None) -> str:
        address = self._task.cluster["chief"][0]
        if chief is None or not self._incarnation:
            why = f"has not signed in under {roster.folder(self._model_dir)}"
        elif chief.get("state") in ("joining", "running"):
            why = "has been gone"
        else:
            why = f"ended ({chief.get('state')}) and did not come back"
        return (
            f"{self._task.name}: the chief at {address} {why} for "
            f"{self._idle_timeout:g} s, `cluster.idle_timeout`; ending."
        )


def serve(
    task: Task,
    model_dir: str,
    spec: ClusterSpec,
    *,
    latest: Callable[[], roster.Entry] = dict,
    **values: object,
) -> None:
    """Serves chiefs until one is done.

    Args:
      task: A worker or a parameter server.
      model_dir: The job's folder.
      spec: The cluster.
      latest: Returns values for the task's file; called at every beat.
      **values: Other initial values of that file.

    Raises:
      ChiefGoneError: If there was no chief for `idle_timeout`.
      OSError: If the task's port is taken.
      RosterError: If another process is the same task.
    """
    if task.kind == "ps":
        values["remote"] = remote.local_token()
    member = Member(
        task, model_dir, idle_timeout=spec.idle_timeout, latest=latest, **values
    )
    try:
        server = start(task)
        logging.info("%s listens at %s.", task.name, task.address)
        while member.follow():
            time.sleep(_POLL_SECS)
    except BaseException as error:
        member.signed_in.close(state="failed", message=str(error))
        raise
    member.signed_in.close(state="ended")
    logging.info("The chief is done.")
    del server


def start(task: Task) -> tf.distribute.Server:
    """Starts TensorFlow's server of a task.

    Raises:
      OSError: If it cannot listen on the task's port.
    """
    asked = tf.config.threading.get_intra_op_parallelism_threads()
    config = tf.compat.v1.ConfigProto(
        inter_op_parallelism_threads=inter_op_threads(),
        intra_op_parallelism_threads=asked or intra_op_threads(task),
    )
    try:
        server = tf.distribute.Server(
            tf.train.ClusterSpec({k: list(v) for k, v in task.cluster.items()}),
            job_name=task.kind,
            task_index=task.index,
            protocol="grpc",
            config=config,
        )
    except tf.errors.OpError as error:
        raise OSError(
            f"{task.name} cannot listen at {task.address}: {error.message} Is another "
            "process using the port?"
        ) from error
    listening.only_on(task.address or "")
    return server


def inter_op_threads() -> int:
    """Returns the number of threads that a server needs."""
    return max(_MIN_INTER_OP_THREADS, 2 * (os.cpu_count() or 1))


def intra_op_threads(task: Task) -> int:
    """Returns the threads of one operation; a host's workers share its cores.

    Returns 0, which means all cores, if no worker runs on the host.
    """
    host = _host(task.address)
    workers = [_host(address) for address in task.cluster["worker"]].count(host)
    return max(1, (os.cpu_count() or 1) // workers) if workers else 0


def _host(address: str | None) -> str:
    return split_address(address or "")[0]


def restart() -> NoReturn:
    """Replaces this process by a fresh run of the same command."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
