"""Steps taken by the workers of a cluster."""

import time
from typing import Any

import tensorflow as tf
from absl import logging

from monolith_tf.data import feed as feed_lib
from monolith_tf.distribute import cluster as cluster_lib
from monolith_tf.training import calls
from monolith_tf.training import overlapped
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper
from monolith_tf.types import Tensor

_CALLS_PER_WORKER = 2
_CALLS_PER_MAINTENANCE = 16


class ClusterStepper(stepper.Stepper):
    """Distributes ranges of batches to workers, each batch of an epoch to one of them.

    A worker has one running call and another one waiting, so workers wait for each
    other only if something needs all of them to be quiet.
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
        self._step = step
        self._cluster = cluster
        self._feed = feed
        self._progress = run.progress
        self._per_epoch = run.steps_per_epoch or 1
        workers = cluster.spec.workers
        self._limit = _CALLS_PER_WORKER * workers
        self.maintain_every = _CALLS_PER_MAINTENANCE * workers * steps_per_loop
        self._calls = calls.Calls(cluster.coordinator, cluster.check)
        self._begun = run.progress.step
        self._offset = run.progress.batch - run.progress.step
        self._since = 0.0
        self._function: Any = None

    @property
    def is_quiet(self) -> bool:
        """See base class."""
        return not self._calls.under_way

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
            (epoch, first, last, cut.to_numbers(), int(time.time())),
            (batch, last - first),
        )
        self._begun += last - first

    def _work(
        self, epoch: Tensor, begin: Tensor, end: Tensor, cut: Tensor, now_secs: Tensor
    ) -> tuple[step_lib.LoopResult, Tensor]:
        batches = self._feed.dataset("train", epoch, begin, end, cut)
        result = overlapped.loop(
            self._step,
            iter(batches),
            end - begin,
            now_secs,
            self._cluster.spec.pipeline,
        )
        # The worker's counts are complete only after all batches were read.
        with tf.control_dependencies(tf.nest.flatten(result)):
            return result, self._feed.news("train")

    def _next(self) -> stepper.StepsTaken:
        done = self._calls.next_done()
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        batch, asked = done.tag
        result, news = done.result
        self._feed.hear("train", news)
        return stepper.StepsTaken(result, asked, batch, seconds)

    def _settle(self, step: int) -> None:
        """Corrects the step counter for calls of lost workers that others repeated."""
        made = int(self._step.step)
        if made > step:
            logging.warning(
                "%d steps were taken twice, by a lost worker and by the one that "
                "repeated its call.",
                made - step,
            )
            self._step.step.assign(step)
