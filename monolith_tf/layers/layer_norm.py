"""Normalization over the last axis."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.types import Identifier

_EPSILON = 1e-6


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class LayerNorm(base.Layer):
    """Normalizes every row to mean 0 and variance 1, then scales and shifts it.

        y = (x - mean(x)) / sqrt(var(x) + 1e-6) * gamma + beta      # over the last axis

    Training and inference compute the same.

    Source: Ba et al., "Layer normalization", equation 4 (arXiv:1607.06450).

    Args:
      initializer: Initializer of `gamma`; None is "ones". `beta` starts at zero.
      regularizer: Penalty on `gamma` and on `beta`.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input and output shape: `[batch, ..., dim]`, `dim` known at build time.

    Raises:
      TypeError: If the input is not floating point.

    Example:
      >>> LayerNorm()(tf.constant([[1.0, 3.0]])).numpy().round(3)
      array([[-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        initializer: Identifier = None,
        regularizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.initializer = initializers.get(initializer, "ones")
        self.regularizer = tf_keras.regularizers.get(regularizer)

    def build(self, input_shape: tf.TensorShape) -> None:
        dim = base.static_width("inputs", input_shape)
        self.gamma = self.add_weight(
            "gamma",
            [dim],
            initializer=initializers.clone(self.initializer),
            regularizer=self.regularizer,
            experimental_autocast=False,
        )
        self.beta = self.add_weight(
            "beta",
            [dim],
            initializer="zeros",
            regularizer=self.regularizer,
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        x = tf.cast(inputs, self.variable_dtype)
        centered = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centered), axis=-1, keepdims=True)
        y = centered * tf.math.rsqrt(variance + _EPSILON) * self.gamma + self.beta
        return tf.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(), sizes.stack
