"""Steps whose batches are scored before they are trained on."""

import time
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.training import evaluation
from monolith_tf.training import event_windows
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper as stepper_lib
from monolith_tf.types import Tensor


class Scoring:
    """Predicts each batch as an evaluation does, then trains on it."""

    def __init__(
        self,
        step: step_lib.TrainStep,
        evaluator: evaluation.Evaluator,
        windows: event_windows.EventWindows | None = None,
    ) -> None:
        """Makes it.

        Args:
          step: The step function.
          evaluator: Scores batches.
          windows: Take the predictions, by event time; None keeps them for `score`.
        """
        self._step = step
        self._evaluator = evaluator
        self._windows = windows
        self._scored: list[dict[str, Tensor]] = []

    def score_and_train(
        self, columns: dict[str, Tensor], now_secs: Tensor
    ) -> tuple[dict[str, Tensor], step_lib.LoopResult]:
        """Takes a step; returns the predictions before it, for `keep`, and its result.

        Call it in a `tf.function`.
        """
        found = self._evaluator.forward(columns)
        return found, self._step.no_result().plus(self._step(columns, now_secs))

    def keep(
        self,
        found: dict[str, Tensor],
        times: np.ndarray | None = None,
        partitions: np.ndarray | None = None,
    ) -> None:
        """Keeps a batch's predictions, from this process or from a worker.

        Args:
          found: The predictions, as tensors or NumPy arrays.
          times: Event times of the rows, for windows; see `EventWindows.add`.
          partitions: Their partitions.
        """
        arrays = tf.nest.map_structure(_numpy, found)
        if self._windows is None:
            self._scored.append(arrays)
        elif times is not None and partitions is not None:
            self._windows.add(arrays, times, partitions)
        else:
            raise ValueError("Windows of event time need the rows' times.")

    def score(self, split: str) -> dict[str, float]:
        """Returns the metrics of the batches since the last call.

        Args:
          split: Not used: the batches are those of the train split.
        """
        del split
        scored, self._scored = self._scored, []
        return self._evaluator.score(scored)


def _numpy(value: Tensor) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else np.asarray(value)


class ProgressiveStepper(stepper_lib.Stepper):
    """Scores each batch of a dataset, then trains on it."""

    def __init__(
        self, step: step_lib.TrainStep, dataset: tf.data.Dataset, scoring: Scoring
    ) -> None:
        """Makes a stepper.

        Args:
          step: The step function.
          dataset: Batches of columns from the run's position on, ordered by time.
          scoring: Scores and trains.
        """
        self._step = step
        self._scoring = scoring
        self._iterator = iter(dataset)
        self._function: Any = None

    def take(self, run: run_lib.Run, plan: stepper_lib.Plan) -> stepper_lib.StepsTaken:
        """See base class; takes one step."""
        if self._function is None:
            self._function = tf.function(
                self._scoring.score_and_train,
                input_signature=[
                    self._iterator.element_spec,
                    tf.TensorSpec([], tf.int64),
                ],
            )
        begin = time.perf_counter()
        columns = next(self._iterator, None)
        result: Any = self._step.no_result()
        if columns is not None:
            now = tf.constant(int(time.time()), tf.int64)
            found, result = self._function(columns, now)
            self._scoring.keep(found)
        result = tf.nest.map_structure(lambda t: t.numpy(), result)
        seconds = time.perf_counter() - begin
        return stepper_lib.StepsTaken(result, 1, run.progress.batch, seconds)
