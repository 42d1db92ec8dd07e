"""Steppers take the steps, in this process or on the workers of a cluster."""

import abc
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib


@dataclasses.dataclass(frozen=True)
class StepsTaken:
    """Steps that were taken together.

    Attributes:
      result: Their result.
      asked: Steps that were requested; fewer were taken if the data ended.
      batch: Position in the data of the first batch.
      seconds: Time spent.
    """

    result: step_lib.LoopResult
    asked: int
    batch: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """How far steps may go from here.

    Attributes:
      end: Step at which a call that starts at a given step must end.
      stop: Step that must not be passed; something is due there while no step is
        running.
    """

    end: Callable[[int], int]
    stop: int


class Stepper(abc.ABC):
    """Takes steps.

    Attributes:
      maintain_every: Steps after which the store's `maintain` is due.
    """

    maintain_every = 1

    @property
    def is_quiet(self) -> bool:
        """Whether no step is running."""
        return True

    @abc.abstractmethod
    def take(self, run: run_lib.Run, plan: Plan) -> StepsTaken:
        """Takes some steps, at least one unless the data has ended."""

    def finish(self) -> list[StepsTaken]:
        """Waits for the steps that are running."""
        return []

    def close(self) -> None:  # noqa: B027
        """Releases what it holds besides memory; called once, at the end."""


class LocalStepper(Stepper):
    """Takes steps in this process, one call after another."""

    def __init__(self, step: step_lib.TrainStep, dataset: tf.data.Dataset) -> None:
        """Makes a stepper.

        Args:
          step: The step function.
          dataset: Batches of columns from the run's position on.
        """
        self._step = step
        self._iterator = iter(dataset)
        self._loop: Any = None

    def take(self, run: run_lib.Run, plan: Plan) -> StepsTaken:
        """See base class."""
        if self._loop is None:
            self._loop = tf.function(self._step.loop)
        asked = plan.end(run.progress.step) - run.progress.step
        begin = time.perf_counter()
        result = self._loop(
            self._iterator,
            tf.constant(asked, tf.int64),
            tf.constant(int(time.time()), tf.int64),
        )
        result = tf.nest.map_structure(lambda t: t.numpy(), result)  # Waits for it.
        seconds = time.perf_counter() - begin
        return StepsTaken(result, asked, run.progress.batch, seconds)
