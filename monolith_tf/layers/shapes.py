"""Telling one shape from a list of shapes."""

from typing import Any

import tensorflow as tf


def is_shape(value: Any) -> bool:
    """Says whether `value` is one shape; a layer's input may also have a list of them.

    Args:
      value: What Keras passes to `build`, or the lists and tuples a config has of it.
    """
    if isinstance(value, tf.TensorShape):
        return True
    return bool(value) and all(n is None or isinstance(n, int) for n in value)
