"""Scores batches on the workers of a cluster before they are trained on."""

import tensorflow as tf

from monolith_tf.training import cluster_evaluation
from monolith_tf.training import evaluation
from monolith_tf.training import step as step_lib
from monolith_tf.types import Nest
from monolith_tf.types import Tensor


def loop(
    step: step_lib.TrainStep,
    evaluator: evaluation.Evaluator,
    iterator: tf.data.Iterator,
    steps: Tensor,
    now_secs: Tensor,
) -> tuple[step_lib.LoopResult, tuple[Tensor, Nest]]:
    """Takes up to `steps` steps; call it inside a function that runs on a worker.

    Args:
      step: The step function.
      evaluator: Predicts.
      iterator: Yields a batch's number, as for `TrainStep.__call__`, and its columns.
      steps: How many steps; fewer are taken if the data end.
      now_secs: Seconds since 1970.

    Returns:
      The result of the steps, and what `Evaluator.forward` found before each of them:
      rows per batch, and all batches as one, for `cluster_evaluation.batches_of`.
    """
    specs = cluster_evaluation.specs(evaluator, iterator.element_spec[1])
    flat_specs = tf.nest.flatten(specs)
    sizes = tf.TensorArray(tf.int64, 0, dynamic_size=True)
    arrays = [
        tf.TensorArray(
            s.dtype, 0, dynamic_size=True, element_shape=s.shape, infer_shape=False
        )
        for s in flat_specs
    ]
    result = step.no_result()
    place, more = 0, tf.constant(True)
    while (result.steps < steps) & result.finite & more:
        optional = iterator.get_next_as_optional()
        more = optional.has_value()
        if more:
            number, columns = optional.get_value()
            found = evaluator.forward(columns)
            result = result.plus(step(columns, now_secs, number))
            rows = next(iter(found["predictions"].values()))
            sizes = sizes.write(place, tf.size(rows, tf.int64))
            values = tf.nest.flatten(found)
            arrays = [a.write(place, v) for a, v in zip(arrays, values, strict=True)]
            place += 1
    joined = [
        a.concat() if s.shape.rank else a.stack()
        for a, s in zip(arrays, flat_specs, strict=True)
    ]
    return result, (sizes.stack(), tf.nest.pack_sequence_as(specs, joined))
