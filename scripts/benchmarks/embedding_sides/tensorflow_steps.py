"""Shared by the sides on TensorFlow: many steps in one call."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from embedding_sides.case import Case


def use_cores(case: Case) -> None:
    """Sets the threads; call it before any other TensorFlow operation."""
    if case.cores:
        tf.config.threading.set_intra_op_parallelism_threads(case.cores)
        tf.config.threading.set_inter_op_parallelism_threads(case.cores)


class Steps:
    """Runs a step on one batch after another.

    Args:
      ids: Batches, `[batches, ...]`.
      step: Takes one batch and the step's number. The numbers that it returns are
        summed, so TensorFlow must compute them.
    """

    def __init__(
        self,
        ids: np.ndarray,
        step: Callable[[tf.Tensor, tf.Tensor], tf.Tensor | None],
    ) -> None:
        self._count, self._done = len(ids), 0
        held = tf.constant(ids)

        @tf.function(autograph=False)
        def run(begin: tf.Tensor, end: tf.Tensor) -> tuple:
            def body(number: tf.Tensor, total: tf.Tensor) -> tuple:
                found = step(held[number % self._count], number)
                return number + 1, total if found is None else total + found

            return tf.while_loop(
                lambda number, _: number < end,
                body,
                (begin, tf.constant(0.0)),
                parallel_iterations=1,
            )

        self._run = run

    def run(self, steps: int) -> None:
        """Runs further steps."""
        begin, self._done = self._done, self._done + steps
        self._run(tf.constant(begin), tf.constant(self._done))
