"""Non-differentiable values with the gradient of a surrogate."""

import tensorflow as tf


def straight_through(value: tf.Tensor, surrogate: tf.Tensor) -> tf.Tensor:
    """Returns exactly `value`, whose gradient is that of `surrogate`.

    Args:
      value: The value of the result.
      surrogate: Finite, of the shape of `value`.
    """
    # The difference is exactly zero.
    return tf.stop_gradient(value) + (surrogate - tf.stop_gradient(surrogate))
