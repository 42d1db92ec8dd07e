"""Pooling of features: several embeddings of one shape into one."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.gradients import custom_gradient
from monolith_tf.layers.parts import base
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


class _Pooling(base.Layer):
    """Reduces a list of tensors of one shape to one tensor of that shape.

    As in Keras' merging layers, a step counts where no input masks it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Nest) -> tf.Tensor:
        _check_list(inputs)
        base.require_floating("inputs", inputs)
        if len(inputs) == 1:
            return tf.identity(inputs[0])
        return self._pool(list(inputs))

    def _pool(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        raise NotImplementedError

    def compute_mask(self, inputs: Nest, mask: Nest = None) -> Nest:
        """What all masks of the inputs keep, or None where there is no mask."""
        del inputs
        masks = [one for one in mask or () if one is not None]
        return functools.reduce(tf.logical_and, masks) if masks else None

    def compute_output_shape(self, input_shape: Shapes) -> tf.TensorShape:
        return tf.TensorShape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        # Keras' method raises unless a layer with arguments overrides it.
        return super().get_config()

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(), sizes.separate


def _check_list(inputs: Nest) -> None:
    if not isinstance(inputs, (list, tuple)):
        raise TypeError(
            "`inputs` must be a list of tensors. "
            f"Received: inputs of type {type(inputs).__name__}. Put it in a list."
        )
    if not inputs:
        raise ValueError("`inputs` must hold at least one tensor. Received: inputs=[].")
    shapes = [tensor.shape for tensor in inputs]
    if any(not shape.is_compatible_with(shapes[0]) for shape in shapes):
        raise ValueError(
            "`inputs` must have the same shape. "
            f"Received: shapes {[str(shape) for shape in shapes]}."
        )


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class SumPooling(_Pooling):
    """The sum of several features, `y = x_0 + x_1 + ...`.

    Args:
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: list of one or more tensors of one shape.
    Output shape: that shape.

    Raises:
      TypeError: If the input is not a list.
      ValueError: If it is empty or shapes differ.

    Example:
      >>> SumPooling()([tf.constant([[1.0, 5.0]]), tf.constant([[3.0, -1.0]])]).numpy()
      array([[4., 4.]], dtype=float32)
    """

    def _pool(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        return tf.add_n(inputs)


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class AvgPooling(_Pooling):
    """The mean of several features, `y = (x_0 + x_1 + ...) / features`.

    Args:
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: list of one or more tensors of one shape.
    Output shape: that shape.

    Raises:
      TypeError: If the input is not a list.
      ValueError: If it is empty or shapes differ.

    Example:
      >>> AvgPooling()([tf.constant([[1.0, 5.0]]), tf.constant([[3.0, -1.0]])]).numpy()
      array([[2., 2.]], dtype=float32)
    """

    def _pool(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        return tf.add_n(inputs) / len(inputs)


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class MaxPooling(_Pooling):
    """The largest entry among several features, `y = max(x_0, x_1, ...)`.

    Args:
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: list of one or more tensors of one shape.
    Output shape: that shape.

    Raises:
      TypeError: If the input is not a list.
      ValueError: If it is empty or shapes differ.

    Example:
      >>> MaxPooling()([tf.constant([[1.0, 5.0]]), tf.constant([[3.0, -1.0]])]).numpy()
      array([[3., 5.]], dtype=float32)
    """

    def _pool(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        return _maximum(*inputs)


@custom_gradient
def _maximum(*inputs: tf.Tensor) -> tuple[tf.Tensor, Callable[..., list[tf.Tensor]]]:
    """Returns the maximum; all inputs that reach it share the gradient equally."""
    y = functools.reduce(tf.maximum, inputs)

    def grad(upstream: tf.Tensor) -> list[tf.Tensor]:
        reached = [tf.cast(x == y, y.dtype) for x in inputs]
        share = upstream / tf.add_n(reached)
        return [share * one for one in reached]

    return y, grad
