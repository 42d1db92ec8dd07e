"""The shapes that a layer is built for, in one form."""

from typing import Any

import tensorflow as tf


def as_list(input_shape: Any) -> list[tf.TensorShape]:
    """Returns the shapes of a list input, or that of a single tensor in a list.

    Args:
      input_shape: What Keras gives to `build`: a `tf.TensorShape` or a sequence of
        them, or the same as plain numbers when a layer is read from a file.
    """
    if isinstance(input_shape, (list, tuple)) and any(
        isinstance(entry, (list, tuple, tf.TensorShape)) for entry in input_shape
    ):
        return [tf.TensorShape(shape) for shape in input_shape]
    return [tf.TensorShape(input_shape)]
