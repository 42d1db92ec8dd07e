"""The transforms of numbers, as TensorFlow operations."""

from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.features.spec import TransformSpec
from monolith_tf.types import JsonMapping
from monolith_tf.types import Tensor


def apply(values: Tensor, steps: Sequence[TransformSpec], found: JsonMapping) -> Tensor:
    """Applies transforms one after another.

    Args:
      values: Numbers, float32 or float64, `[batch, dim]` or `[total]`.
      steps: The transforms, as `TransformSpec` defines them.
      found: Statistics of the training data for a `zscore` that sets no mean: `mean`
        and `std`, one number per entry of the last axis, or one for all.

    Returns:
      A tensor with the shape and type of `values`, or int64 buckets if the last step is
      `bucketize`.
    """
    for step in steps:
        values = _apply(values, step, found)
    return values


def count_clipped(
    values: Tensor, steps: Sequence[TransformSpec], found: JsonMapping
) -> Tensor:
    """Returns how many values the `clip` steps change, an int64 scalar.

    Args:
      values: As in `apply`, like all other arguments.
      steps: The transforms.
      found: Statistics of the training data.
    """
    total = tf.constant(0, tf.int64)
    for step in steps:
        before, values = values, _apply(values, step, found)
        if step.name == "clip":
            # Not `!=`, which counts NaN as changed.
            changed = tf.logical_or(values > before, values < before)
            total += tf.math.count_nonzero(changed)
    return total


def _apply(values: Tensor, step: TransformSpec, found: JsonMapping) -> Tensor:
    """Applies one transform."""
    if step.name == "log1p":
        return tf.sign(values) * tf.math.log1p(tf.abs(values))
    if step.name == "zscore":
        mean = found["mean"] if step.mean is None else step.mean
        std = found["std"] if step.std is None else step.std
        mean, std = (tf.constant(number, values.dtype) for number in (mean, std))
        return (values - mean) / std
    if step.name == "bucketize":
        return _bucketize(values, step.boundaries)
    if step.min is not None:
        values = tf.maximum(values, tf.constant(step.min, values.dtype))
    if step.max is not None:
        values = tf.minimum(values, tf.constant(step.max, values.dtype))
    return values


def needs_statistics(steps: Sequence[TransformSpec]) -> int | None:
    """Returns the index of the step that needs statistics of the data, or None."""
    for index, step in enumerate(steps):
        if step.name == "zscore" and step.mean is None:
            return index
    return None


def _bucketize(values: Tensor, boundaries: Sequence[float]) -> Tensor:
    """Returns how many boundaries each value reaches, int64."""
    reached = tf.searchsorted(
        tf.constant(boundaries, values.dtype), tf.reshape(values, [-1]), side="right"
    )
    return tf.cast(tf.reshape(reached, tf.shape(values)), tf.int64)
