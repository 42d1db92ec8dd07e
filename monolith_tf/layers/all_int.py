"""All pairwise products of features, compressed."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import merge
from monolith_tf.types import Identifier
from monolith_tf.types import Nest


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class AllInt(base.Layer):
    """Crosses all features with each other and compresses the products.

        y = x @ (x^T @ kernel + bias)    # without bias (x @ x^T) @ kernel

    The matrix of all products is never formed. The bias is added before the second
    product, so it shifts row `i` by `sum(x[i]) * bias`.

    Source: Rendle, "Factorization machines", ICDM 2010, pairwise products; the
    compression is not from a paper.

    Args:
      cmp_dim: Number of columns of the kernel, at least 1.
      initializer: Initializer of the kernel; None is "glorot_normal".
      regularizer: Penalty on the kernel.
      use_bias: Adds the bias.
      out_type: "concat", "stack" or None; see the output shape.
      keep_list: Returns a single tensor as a list of one.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, features, dim]`, the last two known at build time.
    Output shape: "concat" `[batch, features * cmp_dim]`, "stack"
    `[batch, features, cmp_dim]`, None a list of `[batch, cmp_dim]`.

    Raises:
      ValueError: If `cmp_dim` is below 1 or `out_type` is unknown.

    Example:
      >>> AllInt(cmp_dim=4)(tf.ones([8, 26, 16])).shape
      TensorShape([8, 104])
    """

    def __init__(
        self,
        cmp_dim: int,
        initializer: Identifier = None,
        regularizer: Identifier = None,
        use_bias: bool = True,
        out_type: str | None = merge.MergeType.CONCAT,
        keep_list: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("cmp_dim", cmp_dim)
        self.cmp_dim = cmp_dim
        self.initializer = initializers.get(initializer, "glorot_normal")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.use_bias = use_bias
        self.out_type = merge.check_merge_type("out_type", out_type)
        self.keep_list = keep_list
        self.input_spec = tf_keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: tf.TensorShape) -> None:
        features = base.static_width("inputs", input_shape, axis=1)
        dim = base.static_width("inputs", input_shape, axis=2)
        self.input_spec = tf_keras.layers.InputSpec(ndim=3, axes={1: features, 2: dim})
        self.kernel = self.add_weight(
            "kernel",
            [features, self.cmp_dim],
            initializer=initializers.clone(self.initializer),
            regularizer=self.regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight("bias", [self.cmp_dim], initializer="zeros")
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> Nest:
        base.require_floating("inputs", inputs)
        by_dim = tf.transpose(inputs, [0, 2, 1])  # [batch, dim, features]
        compressed = base.matmul(by_dim, self.kernel)  # [batch, dim, cmp_dim]
        if self.use_bias:
            compressed += self.bias
        outputs = inputs @ compressed  # [batch, features, cmp_dim]
        return merge.merge_tensor_list(outputs, self.out_type, keep_list=self.keep_list)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "cmp_dim": self.cmp_dim,
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "use_bias": self.use_bias,
            "out_type": self.out_type,
            "keep_list": self.keep_list,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(8), sizes.stack
