"""A small network made of one embedding and applied to another."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import input_shapes
from monolith_tf.layers.parts import masks
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class CAN(base.Layer):
    """Co-action unit: applies an MLP stored in the item's embedding to the user's.

        w_1, b_1, w_2, b_2, ... = item            # w [dim, dim] by rows, b [dim]
        h_i = activation(h_{i-1} @ w_i + b_i)     # h_0 = user, for every layer
        y = h_last                                # sequences: its sum over time

    This layer has no weights, and returns only the last layer's output.

    Source: Bian et al., "CAN: feature co-action network", WSDM 2022 (arXiv:2011.05625).

    Args:
      layer_num: Number of layers in the item's embedding, at least 1.
      activation: Activation after every layer, including the last; None is linear.
      is_seq: Users have a time axis, which is summed at the end.
      is_stacked: Users have a feature axis; features share the item's layers.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: A pair `(user, item)`; `item` is
    `[batch, layer_num * (dim * dim + dim)]`, `user` is
    `[batch, dim]`, or `[batch, time, dim]` with `is_seq`, or `[batch, features, dim]`
    with `is_stacked`, or `[batch, features, time, dim]` with both. A sequence that is
    not stacked may be ragged in time. It has an optional `mask` `[batch, time]` or, if
    stacked, `[batch, features, time]`; false steps are not summed.
    Output shape: `[batch, dim]`, or `[batch, features, dim]` with `is_stacked`.

    Raises:
      ValueError: If `layer_num` is below 1, or an input has another rank or width.

    Example:
      >>> CAN(layer_num=2)((tf.ones([8, 3, 4]), tf.ones([8, 40]))).shape
      TensorShape([8, 3, 4])
    """

    def __init__(
        self,
        layer_num: int = 2,
        activation: Identifier = "relu",
        is_seq: bool = False,
        is_stacked: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("layer_num", layer_num)
        self.layer_num = layer_num
        self.activations = [
            activations.get(activation, name=f"act_{i}", dtype=self.dtype_policy)
            for i in range(layer_num)
        ]
        self.is_seq = is_seq
        self.is_stacked = is_stacked
        self.supports_masking = True

    def build(self, input_shape: Shapes) -> None:
        if input_shapes.is_shape(input_shape) or len(input_shape) != 2:
            raise ValueError(
                "`inputs` must be a pair `(user, item)`. "
                f"Received: inputs.shape={input_shape}."
            )
        user, item = (tf.TensorShape(shape) for shape in input_shape)
        rank = 2 + self.is_seq + self.is_stacked
        if user.rank != rank:
            raise ValueError(
                f"`user` must have rank {rank} with is_seq={self.is_seq} and "
                f"is_stacked={self.is_stacked}. Received: user.shape={user}."
            )
        dim = base.static_width("user", user)
        width = self.layer_num * (dim * dim + dim)
        if item.rank != 2 or base.static_width("item", item) != width:
            raise ValueError(
                f"`item` must be [batch, {width}], which is layer_num * (dim * dim + "
                f"dim) for layer_num={self.layer_num} and dim={dim}. "
                f"Received: item.shape={item}."
            )
        for activation in self.activations:
            self._build_child(activation, user)
        super().build(input_shape)

    def call(self, inputs: Nest, mask: Nest = None) -> tf.Tensor:
        user, item = inputs
        base.require_floating("user", user)
        base.require_floating("item", item)
        if isinstance(user, tf.RaggedTensor) and (self.is_stacked or not self.is_seq):
            raise ValueError(
                "`user` can be ragged only with is_seq=True and is_stacked=False. "
                f"Received: is_seq={self.is_seq}, is_stacked={self.is_stacked}. "
                "Convert it with `to_tensor()` and pass a mask."
            )
        if self.is_seq:
            user, mask = masks.dense_sequence("user", user, mask)
        dim = user.shape[-1]
        item = tf.reshape(item, [tf.shape(item)[0], self.layer_num, dim * dim + dim])
        hidden = user
        for i, activation in enumerate(self.activations):
            hidden = _affine(hidden, item[:, i])
            if activation is not None:
                hidden = activation(hidden)
        return self._sum_over_time(hidden, mask) if self.is_seq else hidden

    def _sum_over_time(self, hidden: tf.Tensor, mask: Nest) -> tf.Tensor:
        if mask is not None:
            if self.is_stacked and mask.shape.rank == 2:
                mask = mask[:, tf.newaxis]  # the same for every feature
            hidden = tf.where(mask[..., tf.newaxis], hidden, tf.zeros_like(hidden))
        return tf.reduce_sum(hidden, axis=-2)

    def compute_mask(self, inputs: Nest, mask: Nest = None) -> Nest:
        """Passes the user's mask on, unless the output is a sum over time."""
        if self.is_seq or mask is None:
            return None
        return mask[0] if isinstance(mask, (list, tuple)) else mask

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "layer_num": self.layer_num,
            "activation": activations.serialize(self.activations[0]),
            "is_seq": self.is_seq,
            "is_stacked": self.is_stacked,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        batch, features, dim = sizes.stack
        user = batch, 2, features, dim
        return cls(1, "prelu", is_seq=True), [user, (batch, dim * dim + dim)]


def _affine(hidden: tf.Tensor, parameters: tf.Tensor) -> tf.Tensor:
    """Applies a separate layer to every example, `[batch, dim * dim + dim]`."""
    shape, dim = tf.shape(hidden), hidden.shape[-1]
    rows = tf.reduce_prod(shape[1:-1])
    kernel = tf.reshape(parameters[:, : dim * dim], [shape[0], dim, dim])
    bias = parameters[:, tf.newaxis, dim * dim :]  # [batch, 1, dim]
    outputs = tf.reshape(hidden, [shape[0], rows, dim]) @ kernel + bias
    return tf.ensure_shape(tf.reshape(outputs, shape), hidden.shape)
