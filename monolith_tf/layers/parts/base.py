"""The base class of the layers: random draws, building of children, parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf import random
from monolith_tf.layers.parts import params
from monolith_tf.types import Shape
from monolith_tf.types import Shapes
from monolith_tf.types import Tensor

_MIN_UNIFORM = 1e-7

Example = tuple["Layer", Any]
"""A layer, and the shapes of a call's inputs: a nest, a tuple of it for several."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the inputs of a layer's `example`.

    Attributes:
      batch: Examples.
      features: Features of an example, and steps of a sequence; at least 2.
      dim: Width of an embedding; at least 2.
    """

    batch: int = 4
    features: int = 3
    dim: int = 2

    @property
    def feature(self) -> tuple[int, int]:
        """The shape of one feature, `[batch, dim]`."""
        return self.batch, self.dim

    @property
    def separate(self) -> list[tuple[int, int]]:
        """The shapes of a list of features, each `[batch, dim]`."""
        return [self.feature] * self.features

    @property
    def stack(self) -> tuple[int, int, int]:
        """The shape of stacked features or of a sequence, `[batch, features, dim]`."""
        return self.batch, self.features, self.dim

    @property
    def flat(self) -> tuple[int, int]:
        """The shape of concatenated features, `[batch, features * dim]`."""
        return self.batch, self.features * self.dim

    @property
    def names(self) -> list[str]:
        """A name for each feature."""
        return [f"feature{i}" for i in range(self.features)]


class Layer(tf_keras.layers.Layer):
    """Base class of this package's layers.

    Random numbers come from `_uniform`, `_normal` and `_gumbel`, so tests can replace
    the draws.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain values."""
        config: dict[str, Any] = super().get_config()
        regularizer = self.activity_regularizer
        if regularizer is not None:
            # Keras accepts it in every layer, but leaves it out of the config.
            config["activity_regularizer"] = tf_keras.regularizers.serialize(
                regularizer
            )
        return config

    @classmethod
    def params(cls) -> params.LayerParams:
        """Returns the constructor's arguments as an object; see `LayerParams`."""
        return params.LayerParams(cls)

    @classmethod
    def example(cls, sizes: Sizes) -> Example:
        """Returns a new layer that uses most of its code, and shapes of its inputs.

        Tests that hold for every layer, and the benchmark, run it.
        """
        raise NotImplementedError(
            f"{cls.__name__} has no example. Define the class method `example`, which "
            "returns a layer and the shapes of its inputs, as in `DotInteraction`."
        )

    def _uniform(self, shape: Shape) -> tf.Tensor:
        """Draws float32 numbers from [0, 1)."""
        return random.uniform(self, shape)

    def _normal(self, shape: Shape) -> tf.Tensor:
        """Draws float32 standard normal numbers."""
        return random.normal(self, shape)

    def _gumbel(self, shape: Shape) -> tf.Tensor:
        """Draws float32 numbers from the standard Gumbel distribution."""
        return -tf.math.log(-tf.math.log(clip_uniform(self._uniform(shape))))

    def _build_child(self, child: tf_keras.layers.Layer, input_shape: Shapes) -> None:
        """Builds a sub-layer with its weights named `<child>/<weight>`.

        A child that is None or a plain function is skipped.
        """
        if not isinstance(child, tf_keras.layers.Layer) or child.built:
            return
        with tf.name_scope(child.name):
            child.build(tf.TensorShape(input_shape))
        child.built = True


def clip_uniform(draw: tf.Tensor) -> tf.Tensor:
    """Moves a uniform draw away from 0 and 1, where its logarithms are infinite."""
    return tf.clip_by_value(draw, _MIN_UNIFORM, 1.0 - _MIN_UNIFORM)


def require_floating(name: str, value: Tensor) -> None:
    """Raises `TypeError` unless every tensor of the nest `value` is floating point."""
    for tensor in tf.nest.flatten(value):
        if not tensor.dtype.is_floating:
            raise TypeError(
                f"`{name}` must be floating point. Received: "
                f"{name}.dtype={tensor.dtype.name}. Cast it first."
            )


def static_width(name: str, input_shape: Shapes, axis: int = -1) -> int:
    """Returns the size of one axis; `ValueError` if it is unknown at build time."""
    shape = tf.TensorShape(input_shape)
    if shape.rank is None or shape[axis] is None:
        raise ValueError(
            f"`{name}` must have a known size on axis {axis} when the layer is built. "
            f"Received: {name}.shape={shape}. Set it with `tf.ensure_shape`."
        )
    return int(shape[axis])


def require_positive(name: str, value: float) -> None:
    """Raises `ValueError` unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or int(value) != value or value < 1:
        raise ValueError(
            f"`{name}` must be an integer of at least 1. Received: {name}={value!r}."
        )


def fixed(value: tf.Tensor) -> Callable[..., tf.Tensor]:
    """Returns an initializer that always returns this value."""
    return lambda shape, dtype=None, **kwargs: value


def matmul(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Multiplies the last axis of a tensor of any known rank by a matrix."""
    rank = inputs.shape.rank
    if rank == 2:
        return inputs @ kernel
    outputs = tf.tensordot(inputs, kernel, axes=[[rank - 1], [0]])
    outputs.set_shape(inputs.shape[:-1].concatenate(kernel.shape[-1]))
    return outputs
