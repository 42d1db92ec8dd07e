"""What steppers share whose steps are taken by the workers of a cluster."""

import abc
import time

from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.training import calls
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper

_CALLS_PER_WORKER = 2
_CALLS_PER_MAINTENANCE = 16


class WorkersStepper(stepper.Stepper):
    """Distributes batches to workers, each batch to one of them.

    A worker has one running call and another one waiting, so workers wait for each
    other only if something needs all of them to be quiet. Each batch has a number: if
    a worker dies, another one repeats its call, and what was applied is dropped.
    """

    def __init__(
        self,
        step: step_lib.TrainStep,
        cluster: cluster_lib.Cluster,
        run: run_lib.Run,
        steps_per_loop: int,
    ) -> None:
        """Makes a stepper.

        Args:
          step: The step function, its variables on parameter servers.
          cluster: The cluster.
          run: The run, at its first step.
          steps_per_loop: Most steps of a call.
        """
        self._step = step
        self._cluster = cluster
        workers = cluster.spec.workers
        self._limit = _CALLS_PER_WORKER * workers
        self.maintain_every = _CALLS_PER_MAINTENANCE * workers * steps_per_loop
        self._calls = calls.Calls(cluster.coordinator, cluster.check)
        self._begun = self._forgotten = run.progress.step
        self._since = 0.0

    @property
    def is_quiet(self) -> bool:
        """See base class."""
        return not self._calls.under_way

    @property
    @abc.abstractmethod
    def _first_unfinished(self) -> int:
        """Number of the first batch that is not finished; called when quiet."""

    def _settle(self, step: int) -> None:
        """Makes the step counter exact, and forgets finished batches now and then.

        A worker that died may have claimed a batch without counting its step.
        """
        if int(self._step.step) != step:
            self._step.step.assign(step)
        if step - self._forgotten >= self.maintain_every // 2:
            self._step.forget_batches(self._first_unfinished)
            self._forgotten = step

    def _seconds(self) -> float:
        """Returns the seconds since the last call, or since it was quiet."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds
