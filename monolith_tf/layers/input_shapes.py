"""The shapes that a layer is built for: one of them, or a list."""

from typing import Any

import tensorflow as tf


def is_shape(value: Any) -> bool:
    """Says whether `value` is one shape; a layer's input may also have a list of them.

    Args:
      value: What Keras gives to `build`: a `tf.TensorShape` or a sequence of them, or
        the same as plain numbers when a layer is read from a file.
    """
    if isinstance(value, tf.TensorShape):
        return True
    return bool(value) and all(n is None or isinstance(n, int) for n in value)


def as_list(input_shape: Any) -> list[tf.TensorShape]:
    """Returns the shapes of a list input, or that of a single tensor in a list.

    Args:
      input_shape: As for `is_shape`.
    """
    shapes = [input_shape] if is_shape(input_shape) else input_shape
    return [tf.TensorShape(shape) for shape in shapes]
