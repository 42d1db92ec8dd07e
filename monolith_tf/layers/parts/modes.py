"""Whether a call is in training mode."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from monolith_tf.types import Nest
from monolith_tf.types import Tensor
from monolith_tf.types import Training

MODES = ("train", "eval", "predict", "infer")


def check_mode(mode: str) -> str:
    """Returns `mode` if it is one of `MODES`; raises `ValueError` otherwise."""
    if mode not in MODES:
        raise ValueError(
            f"`mode` must be one of {', '.join(MODES)}. Received: mode={mode!r}."
        )
    return mode


def is_training(training: Training = None, mode: str | None = None) -> Training:
    """Returns whether a layer's call is in training mode.

    Args:
      training: The call's argument: None, a bool, a number or a scalar tensor. None
        means inference, as in Keras.
      mode: The layer's own mode, None for a layer without one. Any mode but "train"
        switches training off.

    Returns:
      A bool, or a bool tensor where `training` is a tensor.
    """
    if training is None or (mode is not None and mode != "train"):
        return False
    if tf.is_tensor(training) or isinstance(training, tf.Variable):
        return tf.cast(training, tf.bool)
    return bool(training)


def choose(
    condition: Tensor, when_true: Callable[[], Nest], when_false: Callable[[], Nest]
) -> Any:
    """Calls one of two functions, in the graph where `condition` is a tensor."""
    if tf.is_tensor(condition):
        return tf.cond(condition, when_true, when_false)
    return when_true() if condition else when_false()
