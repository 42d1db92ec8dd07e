"""Dropout with draws that a resumed job repeats."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf import random
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import modes
from monolith_tf.types import Shape
from monolith_tf.types import Training


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class Dropout(base.Layer):
    """Zeroes entries at random in training and scales the others up.

        y = x * (u >= rate) / (1 - rate)     # u uniform, one draw per entry

    The layer has no state. Inside a training step of this package, its draws depend on
    the job's seed and the step, and are multiples of 2^-16, to which the rate is
    rounded up; in plain Keras they are TensorFlow's.

    Source: Srivastava et al., "Dropout", JMLR 15, 2014.

    Args:
      rate: Share of entries that are zeroed, at least 0 and below 1.
      noise_shape: Shape of the draw, broadcast against the input; a None entry is the
        input's size. None draws for every entry.
      seed: Operation seed of the draws outside a training step of this package.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input and output shape: any.

    Raises:
      ValueError: If `rate` is out of range.

    Example:
      >>> Dropout(0.5)(tf.ones([2, 2]), training=False).numpy()
      array([[1., 1.],
             [1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0.0 <= rate < 1.0:
            raise ValueError(
                f"`rate` must be at least 0 and below 1. Received: rate={rate}."
            )
        self.rate = rate
        self.noise_shape = noise_shape
        self.seed = seed
        self.supports_masking = True

    def _uniform(self, shape: Shape) -> tf.Tensor:
        return random.coarse_uniform(self, shape, seed=self.seed)

    def call(self, inputs: tf.Tensor, training: Training = None) -> tf.Tensor:
        if self.rate == 0.0:
            return tf.identity(inputs)
        return modes.choose(
            modes.is_training(training),
            lambda: drop(inputs, self._uniform(self._draw_shape(inputs)), self.rate),
            lambda: tf.identity(inputs),
        )

    def _draw_shape(self, inputs: tf.Tensor) -> Shape:
        shape = tf.shape(inputs)
        if self.noise_shape is None:
            return shape
        sizes = enumerate(self.noise_shape)
        return tf.stack([shape[i] if size is None else size for i, size in sizes])

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        shape = self.noise_shape
        return super().get_config() | {
            "rate": self.rate,
            "noise_shape": None if shape is None else list(shape),
            "seed": self.seed,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(0.5), sizes.flat


def drop(inputs: tf.Tensor, draw: tf.Tensor, rate: float) -> tf.Tensor:
    """Zeroes the entries whose draw is below `rate` and scales the others up."""
    scale = 1.0 / (1.0 - rate)
    return inputs * (tf.cast(draw >= rate, inputs.dtype) * scale)
