"""Steps whose batches are scored before they are trained on."""

import time
from typing import Any

import tensorflow as tf

from monolith_tf.training import evaluation
from monolith_tf.training import run as run_lib
from monolith_tf.training import step as step_lib
from monolith_tf.training import stepper as stepper_lib
from monolith_tf.types import Tensor


class Scoring:
    """Predicts each batch as an evaluation does, then trains on it."""

    def __init__(
        self, step: step_lib.TrainStep, evaluator: evaluation.Evaluator
    ) -> None:
        """Makes it.

        Args:
          step: The step function.
          evaluator: Scores batches.
        """
        self._step = step
        self._evaluator = evaluator
        self._scored: list[dict[str, Tensor]] = []

    def score_and_train(
        self, columns: dict[str, Tensor], now_secs: Tensor
    ) -> tuple[dict[str, Tensor], step_lib.LoopResult]:
        """Takes a step; returns the predictions before it, for `keep`, and its result.

        Call it in a `tf.function`.
        """
        found = self._evaluator.forward(columns)
        return found, self._step.no_result().plus(self._step(columns, now_secs))

    def keep(self, found: dict[str, Tensor]) -> None:
        """Keeps a batch's predictions for `score`."""
        self._scored.append(tf.nest.map_structure(lambda t: t.numpy(), found))

    def score(self, split: str) -> dict[str, float]:
        """Returns the metrics of the batches since the last call.

        Args:
          split: Not used: the batches are those of the train split.
        """
        del split
        scored, self._scored = self._scored, []
        return self._evaluator.score(scored)


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
