"""Products of features compressed by a matrix that depends on the example."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers import mlp
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.types import Identifier


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class CDot(base.Layer):
    """Compresses the features by a tower and crosses them with its output.

        projected = x^T @ project_weight                        # [batch, dim, p]
        compressed = compress_tower(flatten(projected))         # [batch, dim * p]
        crossed = x @ reshape(compressed, [batch, dim, p])      # [batch, features, p]
        y = [flatten(crossed) | compressed]

    `AllInt` has one compression for all examples; here each example has its own. The
    tower is an `MLP` with weight normalization and a linear last layer.

    Args:
      project_dim: Width `p` of the projection, at least 1.
      compress_units: Widths of the tower's hidden layers; may be empty.
      activation: Activation of the hidden layers; None is linear.
      initializer: Initializer of all kernels; None is "glorot_normal".
      regularizer: Penalty on all kernels.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, features, dim]`, the last two known at build time.
    Output shape: `[batch, features * project_dim + dim * project_dim]`.

    Raises:
      ValueError: If a width is below 1.

    Example:
      >>> CDot(project_dim=4, compress_units=[32])(tf.ones([8, 26, 16])).shape
      TensorShape([8, 168])
    """

    def __init__(
        self,
        project_dim: int,
        compress_units: Sequence[int],
        activation: Identifier = "relu",
        initializer: Identifier = None,
        regularizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("project_dim", project_dim)
        for units in compress_units:
            base.require_positive("compress_units", units)
        activations.get(activation)
        self.project_dim = project_dim
        self.compress_units = list(compress_units)
        self.activation = activation
        self.initializer = initializers.get(initializer, "glorot_normal")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.input_spec = tf_keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: tf.TensorShape) -> None:
        features = base.static_width("inputs", input_shape, axis=1)
        dim = base.static_width("inputs", input_shape, axis=2)
        self.input_spec = tf_keras.layers.InputSpec(ndim=3, axes={1: features, 2: dim})
        self.project_weight = self.add_weight(
            "project_weight",
            [features, self.project_dim],
            initializer=initializers.clone(self.initializer),
            regularizer=self.regularizer,
        )
        hidden = list(self.compress_units)
        width = dim * self.project_dim
        self.compress_tower = mlp.MLP(
            [*hidden, width],
            activations=[self.activation] * len(hidden) + [None],
            initializers=initializers.clone(self.initializer, 1),
            kernel_regularizer=self.regularizer,
            name="compress_tower",
            dtype=self.dtype_policy,
        )
        self._build_child(self.compress_tower, [None, width])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        batch = tf.shape(inputs)[0]
        features, dim = inputs.shape[1:]
        by_dim = tf.transpose(inputs, [0, 2, 1])  # [batch, dim, features]
        projected = base.matmul(by_dim, self.project_weight)  # [batch, dim, p]
        width = dim * self.project_dim
        compressed = self.compress_tower(tf.reshape(projected, [batch, width]))
        crossed = inputs @ tf.reshape(compressed, [batch, dim, self.project_dim])
        crossed = tf.reshape(crossed, [batch, features * self.project_dim])
        return tf.concat([crossed, compressed], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "project_dim": self.project_dim,
            "compress_units": list(self.compress_units),
            "activation": activations.serialize(activations.get(self.activation)),
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(4, [32]), sizes.stack
