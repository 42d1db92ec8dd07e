"""Input shapes of a layer: one shape, or a list of shapes."""

import tensorflow as tf

from monolith_tf.types import Shapes


def is_shape(value: Shapes) -> bool:
    """Returns whether `value` is one shape, not a list of shapes.

    Args:
      value: What Keras passes to `build`: a `tf.TensorShape` or a sequence of them, or
        the same as plain numbers when a layer is loaded from a file.
    """
    if isinstance(value, tf.TensorShape):
        return True
    return bool(value) and all(n is None or isinstance(n, int) for n in value)


def as_list(input_shape: Shapes) -> list[tf.TensorShape]:
    """Returns the shapes of a list input, or a list with the shape of a single tensor.

    Args:
      input_shape: As for `is_shape`.
    """
    shapes = [input_shape] if is_shape(input_shape) else input_shape
    return [tf.TensorShape(shape) for shape in shapes]
