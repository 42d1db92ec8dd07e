"""Shape checks and a masked softmax for layers that read a query and a sequence."""

import tensorflow as tf

from monolith_tf.layers.parts import input_shapes
from monolith_tf.types import Shapes


def check_shapes(
    input_shape: Shapes, query: str, sequence: str
) -> list[tf.TensorShape]:
    """Returns the shapes of a query and a sequence.

    Args:
      input_shape: What Keras passes to `build`.
      query: The query's argument name, for errors.
      sequence: The sequence's.

    Returns:
      The shapes `[batch, dim]` and `[batch, time, dim]`.

    Raises:
      ValueError: If there are not two shapes of these ranks.
    """
    shapes = input_shapes.as_list(input_shape)
    if [shape.rank for shape in shapes] != [2, 3]:
        raise ValueError(
            f"`inputs` must be `[{query}, {sequence}]` of shapes [batch, dim] and "
            f"[batch, time, dim]. Received: shapes={[str(shape) for shape in shapes]}."
        )
    return shapes


def masked_softmax(scores: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Returns the softmax of the valid entries over the last axis.

    Args:
      scores: `[batch, time]`, float32.
      mask: `[batch, time]`, bool; None if all are valid.

    Returns:
      `[batch, time]`, 0 where not valid; all 0 in a row without a valid entry.
    """
    if mask is None:
        return tf.nn.softmax(scores)
    largest = tf.where(mask, scores, scores.dtype.min)
    largest = tf.reduce_max(largest, axis=-1, keepdims=True)  # [batch, 1]
    shifted = tf.where(mask, scores - tf.stop_gradient(largest), 0.0)
    exponentials = tf.where(mask, tf.exp(shifted), 0.0)
    total = tf.reduce_sum(exponentials, axis=-1, keepdims=True)
    return tf.math.divide_no_nan(exponentials, total)
