"""The chief's side of a cluster: strategy, coordinator, and state of other tasks."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from monolith_tf.distribute import exits
from monolith_tf.distribute import gathering
from monolith_tf.distribute import heartbeat
from monolith_tf.distribute import listening
from monolith_tf.distribute import partitioner
from monolith_tf.distribute import reachable
from monolith_tf.distribute import rivals
from monolith_tf.distribute import roster
from monolith_tf.distribute import sign_in
from monolith_tf.distribute import watch
from monolith_tf.distribute.server import inter_op_threads
from monolith_tf.distribute.spec import ClusterSpec
from monolith_tf.distribute.task import Task
from monolith_tf.types import JsonDict


class Cluster:
    """A connected cluster.

    Attributes:
      task: The chief's own task.
      spec: The cluster, with the workers that take part.
      strategy: Places dense variables on the parameter servers.
      coordinator: Schedules functions on workers.
      reported: The last values of `report`.
      members: Task name -> contents of its file when it signed in.
    """

    def __init__(
        self,
        task: Task,
        spec: ClusterSpec,
        model_dir: str,
        *,
        reported: JsonDict | None = None,
        explain: Callable[[str], str] | None = None,
    ) -> None:
        """Signs in, waits for the other tasks, and connects to them.

        It does not wait for workers that are given up.

        Args:
          task: The chief's task.
          spec: The cluster.
          model_dir: The job's folder.
          reported: Receives the values of `report`.
          explain: Returns the message when a parameter server is lost, the main thread
            hangs and the process must be ended; None never ends the process.

        Raises:
          ConnectionError: If a task's address cannot be reached.
          RosterError: If a task is missing or does not fit.
        """
        self.task = task
        self._model_dir = model_dir
        self.reported = {} if reported is None else reported
        self._regroups = False
        rivals.check_alone(model_dir, task)
        former = roster.read(model_dir, task.name) or {}
        self.signed_in = sign_in.SignedIn(
            model_dir, task, latest=lambda: dict(self.reported)
        )
        self._watch: watch.Watch | None = None
        try:
            self.signed_in.check_starts()
            self.members = gathering.wait_for_all(
                model_dir,
                task,
                self.signed_in,
                timeout=spec.join_timeout,
                optional=_left_out(model_dir, former),
            )
            present = [o for o in task.others() if o.name in self.members]
            workers = [o.address or "" for o in present if o.kind == "worker"]
            self.spec = spec = dataclasses.replace(spec, workers=len(workers))
            self._hang_timeout = spec.hang_timeout
            self.reported["without"] = [
                o.name for o in task.others() if o.name not in self.members
            ]
            self._watch = watch.Watch(
                task,
                model_dir,
                self.signed_in,
                self.members,
                hang_timeout=spec.hang_timeout,
                explain=explain,
            )
            self._watch.start()
            reachable.check(present)
            self.strategy, self.coordinator = _connect(task, workers, spec)
        except BaseException as error:
            self._stop_watch()
            self.signed_in.close(state="failed", message=str(error))
            raise
        self.signed_in.update(state="running")
        logging.info(
            "Connected to %d parameter servers and %d workers.", spec.ps, spec.workers
        )
        if self.reported["without"]:
            logging.warning(
                "The job continues without %s.", ", ".join(self.reported["without"])
            )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Places variables that are made inside on the parameter servers."""
        with self.strategy.scope(), partitioner.whole_initial_values():
            yield

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices of the parameter servers."""
        return tuple(f"/job:ps/task:{i}/device:CPU:0" for i in range(self.spec.ps))

    @property
    def feed_tokens(self) -> tuple[str, ...]:
        """Tokens of the workers' functions that read their data and return counts.

        Raises:
          RosterError: If they differ.
        """
        tokens = {
            tuple(entry["feed"]): name
            for name, entry in self.members.items()
            if "feed" in entry
        }
        if len(tokens) != 1:
            raise roster.RosterError(
                f"The workers must have the same feeder. Received: {tokens}. Run the "
                "same version of monolith_tf with the same config everywhere."
            )
        return next(iter(tokens))

    @property
    def remote_token(self) -> str:
        """Token of the parameter servers' function, for `remote.call`.

        Raises:
          RosterError: If they differ.
        """
        tokens = {
            other.name: self.members[other.name]["remote"] for other in self._servers()
        }
        if len(set(tokens.values())) != 1:
            raise roster.RosterError(
                "The parameter servers must have the same Python function. "
                f"Received: {tokens}. Run the same version of monolith_tf with the "
                "same config everywhere."
            )
        return next(iter(tokens.values()))

    def report(self, **values: object) -> None:
        """Puts values into the chief's file: new keys at once, others at a beat."""
        is_first = not values.keys() <= self.reported.keys()
        self.reported.update(values)
        if is_first:
            with contextlib.suppress(OSError):  # As for any beat.
                self.signed_in.update(**values)

    def _failure_of_workers(self) -> str | None:
        """Returns a worker's error of reading data, or None."""
        for other in self.task.others():
            entry = roster.read(self._model_dir, other.name) or {}
            if other.kind == "worker" and entry.get("message"):
                where = f"{other.name} at {other.address}"
                return f"{where} cannot read its data: {entry['message']}"
        return None

    def check(self, waited_secs: float = 0.0) -> None:
        """Checks that waiting for the workers is not useless.

        Args:
          waited_secs: For how long no worker has returned from a call.

        Raises:
          ParameterServerLostError: If one hangs, is gone, or is now another process.
          StuckError: If workers are gone, and the others cannot continue without a
            restart: TensorFlow waits for all of them before it readmits one.
        """
        if self._watch is None:
            return
        if self._watch.lost:
            raise exits.ParameterServerLostError(self._watch.lost)
        if waited_secs > self._hang_timeout:
            self._watch.give_up_gone()
            if self._watch.change:
                raise exits.StuckError(
                    f"{self._watch.change}, and no worker has returned from a call for "
                    f"{waited_secs:.0f} s."
                )

    @property
    def change(self) -> str:
        """Why the chief should restart with other workers; empty if not."""
        return "" if self._watch is None else self._watch.change

    def regroup(self) -> None:
        """Makes `watched` end for a new chief with other workers."""
        self._regroups = True

    @property
    def regroups(self) -> bool:
        """Whether a chief with other workers will replace this process."""
        return self._regroups

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turns TensorFlow's errors into `ParameterServerLostError` if one is lost.

        On a clean exit, the other tasks see that the job is done.
        """
        try:
            yield
        except tf.errors.OpError as error:
            lost = self._lost_servers()
            if not lost:
                self._stop_watch()
                failure = self._failure_of_workers() or str(error)
                self.signed_in.close(state="failed", message=failure)
                if failure == str(error):
                    raise
                raise ValueError(failure) from error
            if self._watch is not None:  # It ensures that the process ends.
                self._watch.lost = _lost(lost)
            self.signed_in.close(state="ps_lost", message=_lost(lost))
            raise exits.ParameterServerLostError(_lost(lost)) from error
        except exits.ParameterServerLostError as error:
            self.signed_in.close(state="ps_lost", message=str(error))
            raise
        except exits.StuckError:
            self.regroup()
            self._stop_watch()
            self._make_way()
            raise
        except KeyboardInterrupt:
            self._stop_watch()
            self.signed_in.close(state="interrupted")
            raise
        except BaseException as error:
            self._stop_watch()
            self.signed_in.close(state="failed", message=str(error))
            raise
        self._stop_watch()
        if self._regroups:
            self._make_way()
        else:
            self.signed_in.close(state="done")

    def _make_way(self) -> None:
        """Writes for which workers the next chief need not wait."""
        without = (
            self.reported["without"] if self._watch is None else self._watch.without
        )
        self.signed_in.close(state=roster.REGROUPING, without=without)

    def _stop_watch(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def _servers(self) -> list[Task]:
        return [other for other in self.task.others() if other.kind == "ps"]

    def _lost_servers(self) -> list[Task]:
        """Returns the parameter servers that are gone, or are now other processes."""
        deadline = time.monotonic() + 2 * heartbeat.BEAT_SECS
        while True:
            lost = [
                other
                for other in self._servers()
                if reachable.why_not(other) is not None
                or (roster.read(self._model_dir, other.name) or {}).get("nonce")
                != self.members[other.name]["nonce"]
            ]
            # A process that was just killed may be about to be replaced.
            if lost or time.monotonic() > deadline:
                return lost
            time.sleep(0.2)


def _lost(lost: list[Task]) -> str:
    names = ", ".join(f"{other.name} at {other.address}" for other in lost)
    return f"A parameter server was lost: {names}."


def _left_out(model_dir: str, former: roster.Entry) -> Callable[[], frozenset[str]]:
    """Returns a function that returns the workers for which a chief need not wait.

    Args:
      model_dir: The job's folder.
      former: The file that the previous chief has left.
    """
    launcher = watch.Launcher(model_dir)
    ended = former.get("state") in ("done", "failed", "interrupted")
    without = frozenset(() if ended else former.get("without", ()))

    def left_out() -> frozenset[str]:
        launcher.look()
        return without | launcher.given_up

    return left_out


def _connect(
    task: Task, workers: Sequence[str], spec: ClusterSpec
) -> tuple[
    tf.distribute.ParameterServerStrategy, tf.distribute.coordinator.ClusterCoordinator
]:
    # Makes TensorFlow report a lost task instead of waiting for it.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_inter_op_parallelism_threads(inter_op_threads())
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(
            {
                **{job: list(a) for job, a in task.cluster.items()},
                # Numbered from 0 for the coordinator, even if some are left out.
                "worker": list(workers),
            }
        ),
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
