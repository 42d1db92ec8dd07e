"""Steps on files, taken by the workers of a cluster."""

import time
from typing import Any

import tensorflow as tf

from monolith_tf.data import feed as feed_lib
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.training import overlapped
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper
from monolith_tf.training import workers_stepper
from monolith_tf.types import Tensor


class ClusterStepper(workers_stepper.WorkersStepper):
    """Distributes ranges of batches to workers, each batch of an epoch to one of them.

    A batch's number is its position in the data.
    """

    def __init__(
        self,
        step: step_lib.TrainStep,
        cluster: cluster_lib.Cluster,
        feed: feed_lib.Feed,
        run: run_lib.Run,
        steps_per_loop: int,
    ) -> None:
        """Makes a stepper.

        Args:
          step: The step function, its variables on parameter servers.
          cluster: The cluster.
          feed: How workers read their batches.
          run: The run, at its first step.
          steps_per_loop: Most steps of a call.
        """
        super().__init__(step, cluster, run, steps_per_loop)
        self._feed = feed
        self._progress = run.progress
        self._per_epoch = run.steps_per_epoch or 1
        self._offset = run.progress.batch - run.progress.step
        self._function: Any = None

    def take(self, run: run_lib.Run, plan: stepper.Plan) -> stepper.StepsTaken:
        """See base class."""
        if self.is_quiet:
            self._since = time.perf_counter()
        while self._calls.under_way < self._limit and self._begun < plan.stop:
            self._begin(min(plan.end(self._begun), plan.stop))
        taken = self._next()
        if self.is_quiet:
            self._settle(run.progress.step + int(taken.result.steps))
        return taken

    def finish(self) -> list[stepper.StepsTaken]:
        """See base class."""
        taken = []
        while not self.is_quiet:
            taken.append(self._next())
        return taken

    @property
    def _first_unfinished(self) -> int:
        return self._begun + self._offset

    def _begin(self, end: int) -> None:
        """Starts a call up to a step, or up to the end of the epoch."""
        if self._function is None:
            self._function = tf.function(self._work)
        batch = self._begun + self._offset
        epoch, first = divmod(batch, self._per_epoch)
        cut = self._progress.cut(epoch)
        last = min(first + end - self._begun, self._per_epoch)
        self._calls.begin(
            self._function,
            (epoch, first, last, cut.to_numbers(), batch, int(time.time())),
            (batch, last - first),
        )
        self._begun += last - first

    def _work(
        self,
        epoch: Tensor,
        begin: Tensor,
        end: Tensor,
        cut: Tensor,
        number: Tensor,
        now_secs: Tensor,
    ) -> tuple[step_lib.LoopResult, Tensor]:
        steps = end - begin
        batches = self._feed.dataset("train", epoch, begin, end, cut)
        numbers = tf.data.Dataset.range(number, number + steps)
        result = overlapped.loop(
            self._step,
            iter(tf.data.Dataset.zip((numbers, batches))),
            steps,
            now_secs,
            self._cluster.spec.pipeline,
        )
        # The worker's counts are complete only after all batches were read.
        with tf.control_dependencies(tf.nest.flatten(result)):
            return result, self._feed.news("train")

    def _next(self) -> stepper.StepsTaken:
        done = self._calls.next_done()
        batch, asked = done.tag
        result, news = done.result
        self._feed.hear("train", news)
        return stepper.StepsTaken(result, asked, batch, self._seconds())
