"""The pairwise dot products of DLRM."""

from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.types import Shapes


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class DotInteraction(base.Layer):
    """Dot products of every pair of features.

        p[i, j] = sum(x_i * x_j)                    # over dim
        y = [p[1, 0], p[2, 0], p[2, 1], ...]        # below the diagonal, row by row

    Source: Naumov et al., "Deep learning recommendation model", section 2.1.3
    (arXiv:1906.00091).

    Args:
      self_interaction: Includes the diagonal: p[0, 0], p[1, 0], p[1, 1], ...
      skip_gather: Returns all `features * features` products, zero where the output
        above leaves them out; larger, but without a gather.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: list of tensors `[batch, dim]`.
    Output shape: `[batch, features * (features - 1) / 2]`, with the diagonal
      `[batch, features * (features + 1) / 2]`, with `skip_gather`
      `[batch, features * features]`.

    Raises:
      ValueError: If the input is not a list of tensors of rank 2 and the same shape.

    Example:
      >>> DotInteraction()([tf.ones([8, 4]), tf.ones([8, 4]), tf.ones([8, 4])]).shape
      TensorShape([8, 3])
    """

    def __init__(
        self, self_interaction: bool = False, skip_gather: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.self_interaction = self_interaction
        self.skip_gather = skip_gather

    def build(self, input_shape: Shapes) -> None:
        if not isinstance(input_shape, (list, tuple)):
            raise ValueError(
                "`inputs` must be a list of tensors of rank 2. "
                f"Received: one tensor of shape {input_shape}. Unstack it first."
            )
        shapes = [tf.TensorShape(shape) for shape in input_shape]
        if any(
            shape.rank != 2 or not shape.is_compatible_with(shapes[0])
            for shape in shapes
        ):
            raise ValueError(
                "`inputs` must be tensors of rank 2 and the same shape. "
                f"Received: shapes {[str(shape) for shape in shapes]}."
            )
        super().build(input_shape)

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        n = len(inputs)
        features = tf.stack(inputs, axis=1)  # [batch, features, dim]
        products = tf.matmul(features, features, transpose_b=True)
        products = tf.reshape(products, [tf.shape(features)[0], n * n])
        taken = np.tril(np.ones([n, n]), 0 if self.self_interaction else -1).ravel()
        if self.skip_gather:
            return products * tf.constant(taken, products.dtype)
        return tf.gather(products, np.flatnonzero(taken), axis=1)

    def compute_output_shape(self, input_shape: Shapes) -> tf.TensorShape:
        n = len(input_shape)
        pairs = n * (n + 1) // 2 if self.self_interaction else n * (n - 1) // 2
        batch = tf.TensorShape(input_shape[0])[0]
        return tf.TensorShape([batch, n * n if self.skip_gather else pairs])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "self_interaction": self.self_interaction,
            "skip_gather": self.skip_gather,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(), sizes.separate
