"""The chief's side of a cluster: strategy, coordinator, and what became of the rest."""

import concurrent.futures
import contextlib
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from monolith_tf.distribute import exits
from monolith_tf.distribute import listening
from monolith_tf.distribute import partitioner
from monolith_tf.distribute import roster
from monolith_tf.distribute.server import inter_op_threads
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.distribute.task import Task
from monolith_tf.distribute.task import split_address

_CONNECT_SECS = 5.0
_PS_SILENT_SECS = 60.0


class Cluster:
    """A connected cluster.

    Attributes:
      task: The chief's own task.
      spec: The cluster.
      strategy: Places dense variables on the parameter servers.
      coordinator: Hands functions to workers.
      told: What `tell` was given last.
      members: Task name -> what its file held when it signed in.
    """

    def __init__(self, task: Task, spec: ClusterSpec, model_dir: str) -> None:
        """Signs in, waits for the other tasks, and connects to them.

        Args:
          task: The chief's.
          spec: The cluster.
          model_dir: The job's folder.

        Raises:
          ConnectionError: If a task's address cannot be reached.
          RosterError: If a task is missing or does not fit.
        """
        self.task = task
        self.spec = spec
        self._model_dir = model_dir
        self.told: dict[str, Any] = {}
        roster.check_alone(model_dir, task)
        self.signed_in = roster.SignedIn(model_dir, task, told=lambda: dict(self.told))
        try:
            self.members = roster.wait_for_all(
                model_dir, task, self.signed_in, timeout=spec.join_timeout
            )
            check_reachable(task)
            self.strategy, self.coordinator = _connect(task, spec)
        except BaseException as error:
            self.signed_in.close(state="failed", message=str(error))
            raise
        self.signed_in.update(state="running")
        self._pulses = {
            other.name: roster.Pulse(_PS_SILENT_SECS) for other in self._servers()
        }
        logging.info(
            "Connected to %d parameter servers and %d workers.", spec.ps, spec.workers
        )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Puts variables made meanwhile on the parameter servers."""
        with self.strategy.scope(), partitioner.whole_initial_values():
            yield

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the parameter servers."""
        return tuple(f"/job:ps/task:{i}/device:CPU:0" for i in range(self.spec.ps))

    @property
    def feed_token(self) -> str:
        """What the workers call the function that reads their data.

        Raises:
          RosterError: If they differ.
        """
        tokens = {
            entry["feed"]: name
            for name, entry in self.members.items()
            if "feed" in entry
        }
        if len(tokens) != 1:
            raise roster.RosterError(
                f"The workers must have one feeder. Received: {tokens}. They must run "
                "the same version of monolith_tf with the same config."
            )
        return str(next(iter(tokens)))

    def tell(self, **values: Any) -> None:
        """Puts values into the chief's file, at the next beat."""
        self.told.update(values)

    def _failure_of_workers(self) -> str | None:
        """Returns what workers say went wrong while reading data."""
        for other in self.task.others():
            entry = roster.read(self._model_dir, other.name) or {}
            if other.kind == "worker" and entry.get("message"):
                where = f"{other.name} at {other.address}"
                return f"{where} cannot read its data: {entry['message']}"
        return None

    def check(self) -> None:
        """Checks that all parameter servers are those that signed in.

        Raises:
          ParameterServerLostError: If one is gone or another process by now.
        """
        for other in self._servers():
            entry = roster.read(self._model_dir, other.name)
            pulse = self._pulses[other.name]
            pulse.look(entry)
            is_other = entry is not None and (
                entry.get("nonce") != self.members[other.name]["nonce"]
            )
            if is_other or pulse.quiet_secs > _PS_SILENT_SECS:
                raise exits.ParameterServerLostError(_lost([other]))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turns TensorFlow's errors into `ParameterServerLostError` where one is lost.

        On a clean exit the other tasks are told that the job is done.
        """
        try:
            yield
        except tf.errors.OpError as error:
            lost = self._lost_servers()
            if not lost:
                failure = self._failure_of_workers() or str(error)
                self.signed_in.close(state="failed", message=failure)
                if failure == str(error):
                    raise
                raise ValueError(failure) from error
            self.signed_in.close(state="ps_lost", message=_lost(lost))
            raise exits.ParameterServerLostError(_lost(lost)) from error
        except exits.ParameterServerLostError as error:
            self.signed_in.close(state="ps_lost", message=str(error))
            raise
        except KeyboardInterrupt:
            self.signed_in.close(state="interrupted")
            raise
        except BaseException as error:
            self.signed_in.close(state="failed", message=str(error))
            raise
        self.signed_in.close(state="done")

    def _servers(self) -> list[Task]:
        return [other for other in self.task.others() if other.kind == "ps"]

    def _lost_servers(self) -> list[Task]:
        """Returns the parameter servers that are gone, or other processes by now."""
        deadline = time.monotonic() + 2 * roster.BEAT_SECS
        while True:
            lost = [
                other
                for other in self._servers()
                if _unreachable(other) is not None
                or (roster.read(self._model_dir, other.name) or {}).get("nonce")
                != self.members[other.name]["nonce"]
            ]
            # A process that was killed a moment ago may be being replaced just now.
            if lost or time.monotonic() > deadline:
                return lost
            time.sleep(0.2)


def _lost(lost: list[Task]) -> str:
    names = ", ".join(f"{other.name} at {other.address}" for other in lost)
    return f"A parameter server was lost: {names}."


def check_reachable(task: Task) -> None:
    """Checks that the other tasks accept connections.

    Raises:
      ConnectionError: If one does not, within a bounded time.
    """
    others = task.others()
    with concurrent.futures.ThreadPoolExecutor(min(32, len(others))) as pool:
        found = list(pool.map(_unreachable, others))
    problems = [
        f"{other.name} at {other.address} has signed in but cannot be reached: {why}."
        for other, why in zip(others, found, strict=True)
        if why is not None
    ]
    if problems:
        raise ConnectionError(
            "\n".join(problems)
            + "\nCheck names, ports and firewalls between the machines."
        )


def _unreachable(other: Task) -> str | None:
    """Returns why a task cannot be reached, or None where it can."""
    try:
        address = split_address(other.address or "")
        with socket.create_connection(address, timeout=_CONNECT_SECS):
            return None
    except OSError as error:
        return str(error) or type(error).__name__


def _connect(task: Task, spec: ClusterSpec) -> tuple[Any, Any]:
    # Has TensorFlow report a lost task instead of waiting for it.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads())
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({job: list(a) for job, a in task.cluster.items()}),
        task_type="chief",
        task_id=0,
        rpc_layer="grpc",
    )
    strategy = tf.distribute.ParameterServerStrategy(
        resolver,
        variable_partitioner=partitioner.Partitioner(spec.ps, spec.min_part_bytes),
    )
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    listening.only_on(task.address or "")
    return strategy, coordinator
