"""The user-to-item part of Deep Match to Rank."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers.dense import Dense
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import masks
from monolith_tf.layers.parts import sequences
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class DMR_U2I(base.Layer):
    """Pools a sequence by position and content, then multiplies it with the item.

        f_t   = score_activation(pos_emb[t] + user_seq_t @ emb_weight + bias)
        alpha = softmax over t of (f_t @ z_weight)           # of the valid steps
        u     = sum_t alpha_t * user_seq_t
        y     = activation(u @ kernel + dense_bias) * items

    The product is elementwise, where the paper has an inner product. The paper's
    auxiliary loss is not part of the layer. Without a valid step `u` is zero.

    Source: Lyu et al., "Deep Match to Rank Model for Personalized Click-Through Rate
    Prediction", AAAI 2020, user-to-item network.

    Args:
      cmp_dim: Width of `f_t`, at least 1.
      activation: Activation of the pooled sequence's map to the item's width; None is
        linear.
      initializer: Initializer of `pos_emb`, `emb_weight` and `kernel`; None is
        "glorot_uniform".
      regularizer: Penalty on these three.
      score_activation: Activation of `f_t`; None makes the score linear, and then
        `bias` has no effect.
      max_len: Rows of `pos_emb`; None uses the sequence's length, which must then be
        known when the layer is built.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Call arguments:
      inputs: List of items and user_seq; the sequence may be ragged.
      mask: `[batch, time]`, bool or numeric, valid where at least 1.

    Input shape: `[batch, item_dim]` and `[batch, time, dim]`.
    Output shape: `[batch, item_dim]`.

    Raises:
      ValueError: If an argument is out of range, the input is not such a list, or the
        sequence is longer than `pos_emb`.
      tf.errors.InvalidArgumentError: If a length that is known only at run time is
        longer.

    Example:
      >>> DMR_U2I(cmp_dim=4)([tf.ones([8, 6]), tf.ones([8, 20, 5])]).shape
      TensorShape([8, 6])
    """

    def __init__(
        self,
        cmp_dim: int,
        activation: Identifier = "PReLU",
        initializer: Identifier = "glorot_uniform",
        regularizer: Identifier = None,
        score_activation: Identifier = "tanh",
        max_len: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("cmp_dim", cmp_dim)
        if max_len is not None:
            base.require_positive("max_len", max_len)
        self.cmp_dim = int(cmp_dim)
        self.activation = activations.get(activation)
        self.initializer = initializers.get(initializer)
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.score_activation = activations.get(
            score_activation, name="score_activation", dtype=self.dtype_policy
        )
        self.max_len = max_len
        self.supports_masking = True

    def build(self, input_shape: Shapes) -> None:
        items, user_seq = sequences.check_shapes(input_shape, "items", "user_seq")
        item_dim = base.static_width("items", items)
        dim = base.static_width("user_seq", user_seq)
        length = self.max_len or user_seq[1]
        if length is None:
            raise ValueError(
                "`user_seq` must have a known length when the layer is built. "
                f"Received: user_seq.shape={user_seq}. Set `max_len`."
            )
        self.pos_emb = self._add_kernel(0, "pos_emb", [length, self.cmp_dim])
        self.emb_weight = self._add_kernel(1, "emb_weight", [dim, self.cmp_dim])
        self.z_weight = self.add_weight(
            "z_weight", [self.cmp_dim, 1], initializer="ones"
        )
        self.bias = self.add_weight("bias", [self.cmp_dim], initializer="zeros")
        self._build_child(self.score_activation, [*user_seq[:2], self.cmp_dim])
        self.dense = Dense(
            item_dim,
            activation=self.activation,
            kernel_initializer=initializers.clone(self.initializer, 2),
            kernel_regularizer=self.regularizer,
            name="dense",
            dtype=self.dtype_policy,
        )
        self._build_child(self.dense, [None, dim])
        super().build(input_shape)

    def _add_kernel(self, index: int, name: str, shape: list[int]) -> tf.Variable:
        return self.add_weight(
            name,
            shape,
            initializer=initializers.clone(self.initializer, index),
            regularizer=self.regularizer,
        )

    def call(self, inputs: Nest, mask: Nest = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        items, user_seq = inputs
        user_seq, mask = masks.dense_sequence("user_seq", user_seq, mask, position=1)
        hidden = base.matmul(user_seq, tf.convert_to_tensor(self.emb_weight))
        hidden += self._positions(user_seq) + self.bias  # [batch, time, cmp_dim]
        if self.score_activation is not None:
            hidden = self.score_activation(hidden)
        logits = tf.linalg.matvec(hidden, self.z_weight[:, 0])  # [batch, time]
        shares = sequences.masked_softmax(tf.cast(logits, self.variable_dtype), mask)
        shares = tf.cast(shares, self.compute_dtype)
        pooled = tf.linalg.matvec(user_seq, shares, transpose_a=True)  # [batch, dim]
        return self.dense(pooled) * items

    def _positions(self, user_seq: tf.Tensor) -> tf.Tensor:
        """Returns a row of `pos_emb` for each step, `[time, cmp_dim]`."""
        rows, length = self.pos_emb.shape[0], user_seq.shape[1]
        if length is None:
            length = tf.shape(user_seq)[1]
            # A single row would be broadcast without an error.
            message = f"`user_seq` is longer than the {rows} rows of `pos_emb`."
            check = tf.debugging.assert_less_equal(length, rows, message=message)
            with tf.control_dependencies([check]):
                length = tf.identity(length)
        elif length > rows:
            raise ValueError(
                f"`user_seq` must have at most {rows} steps, as many as `pos_emb` has "
                f"rows. Received: user_seq.shape={user_seq.shape}. Increase `max_len`."
            )
        return self.pos_emb[:length]

    def compute_mask(self, inputs: Nest, mask: Nest = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Shapes) -> tf.TensorShape:
        return tf.TensorShape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "cmp_dim": self.cmp_dim,
            "activation": activations.serialize(self.activation),
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "score_activation": activations.serialize(self.score_activation),
            "max_len": self.max_len,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(sizes.dim), [sizes.feature, sizes.stack]
