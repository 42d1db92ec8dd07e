"""Self-attention over features without parameters."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import merge
from monolith_tf.types import Nest


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class AutoInt(base.Layer):
    """Replaces every feature by an average of all, weighted by similarity, repeatedly.

        x = softmax(x @ x^T) @ x    # `layer_num` times

    There are no projections, heads, scales or residuals, and so no weights.

    Source: simplified from Song et al., "AutoInt", CIKM 2019 (arXiv:1810.11921).

    Args:
      layer_num: Number of repetitions, at least 1.
      out_type: "concat", "stack" or None; see the output shape.
      keep_list: Returns a single tensor as a list of one.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, features, dim]`, the last two known at build time.
    Output shape: "concat" `[batch, features * dim]`, "stack" `[batch, features, dim]`,
    None a list of `[batch, dim]`.

    Raises:
      ValueError: If `layer_num` is below 1 or `out_type` is unknown.

    Example:
      >>> AutoInt(layer_num=2)(tf.ones([8, 26, 16])).shape
      TensorShape([8, 416])
    """

    def __init__(
        self,
        layer_num: int = 1,
        out_type: str | None = merge.MergeType.CONCAT,
        keep_list: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("layer_num", layer_num)
        self.layer_num = layer_num
        self.out_type = merge.check_merge_type("out_type", out_type)
        self.keep_list = keep_list
        self.input_spec = tf_keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: tf.TensorShape) -> None:
        for axis in (1, 2):
            base.static_width("inputs", input_shape, axis=axis)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> Nest:
        base.require_floating("inputs", inputs)
        outputs = inputs
        for _ in range(self.layer_num):
            similarity = tf.matmul(outputs, outputs, transpose_b=True)
            weights = tf.nn.softmax(tf.cast(similarity, tf.float32))
            # [batch, features, features] @ [batch, features, dim]
            outputs = tf.cast(weights, outputs.dtype) @ outputs
        return merge.merge_tensor_list(outputs, self.out_type, keep_list=self.keep_list)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "layer_num": self.layer_num,
            "out_type": self.out_type,
            "keep_list": self.keep_list,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(2), sizes.stack
