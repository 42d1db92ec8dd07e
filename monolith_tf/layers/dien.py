"""Interests that evolve towards a target, as in DIEN."""

from random import randrange
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers import agru_cell
from monolith_tf.layers import rnn_with_attention
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import masks
from monolith_tf.layers.parts import sequences


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class DIEN(base.Layer):
    """A GRU extracts interests; a second GRU evolves them towards a query.

        G_1 .. G_T = GRU(keys)
        s_t = softmax over t of (G_t @ attention_weight @ query)
        h_t = agru_cell(G_t, h_{t-1}, s_t),   h_0 = 0
        y   = h_T

    A masked step changes neither state and has the score 0; the softmax is over the
    valid steps. The first GRU is Keras', with its reset gate after the product. The
    auxiliary loss of the paper is not part of the layer. XLA can compile the layer if
    the number of steps is known when it is traced.

    Source: Zhou et al., "Deep Interest Evolution Network for Click-Through Rate
    Prediction", AAAI 2019 (arXiv:1809.03672).

    Args:
      num_units: Width of both states, at least 1.
      att_type: "AGRU" or "AUGRU", in any letter case; see `AGRUCell`.
      activation: Activation of both recurrences' candidates; None is "tanh".
      initializer: Initializer of the kernels except the GRU's recurrent one, which is
        orthogonal; None is "he_uniform".
      regularizer: Penalty on all kernels except that one.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Call arguments:
      inputs: List of queries, keys and optionally a mask; or only the queries. The keys
        may be ragged.
      keys: The keys, if they are not in the list.
      mask: `[batch, time]`, bool or numeric, valid where at least 1.

    Input shape: `[batch, query_dim]`, `[batch, time, dim]` and `[batch, time]`.
    Output shape: `[batch, num_units]`; zero in a row without a valid step.

    Raises:
      ValueError: If an argument is out of range, the inputs are not such a list, or
        there is more than one mask.

    Example:
      >>> DIEN(6, att_type="AUGRU")([tf.ones([8, 4]), tf.ones([8, 20, 5])]).shape
      TensorShape([8, 6])
    """

    def __init__(
        self,
        num_units: int,
        att_type: str = "AGRU",
        activation: Any = "relu",
        initializer: Any = "he_uniform",
        regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        base.require_positive("num_units", num_units)
        self.num_units = int(num_units)
        self.att_type = agru_cell.check_type(att_type)
        self.activation = activations.get(
            "tanh" if activation is None else activation,
            name="activation",
            # States are as precise as variables, also under mixed precision.
            dtype=self.variable_dtype,
        )
        self.initializer = initializers.get(initializer, "he_uniform")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.supports_masking = True
        self.gru_cell = tf_keras.layers.GRUCell(
            num_units,
            # Not the layer itself: Keras files would hold its slope as the cell's.
            activation=self._activate,
            kernel_initializer=initializers.clone(self.initializer, 0),
            recurrent_initializer=_orthogonal(self.initializer),
            kernel_regularizer=self.regularizer,
            name="gru_cell",
            dtype=self.variable_dtype,
        )
        self.agru_cell = agru_cell.AGRUCell(
            num_units,
            att_type=att_type,
            activation=self.activation,
            initializer=initializers.clone(self.initializer, 1),
            regularizer=self.regularizer,
            name="agru_cell",
            dtype=self.dtype_policy,
        )

    def __call__(self, inputs: Any, keys: Any = None, **kwargs: Any) -> tf.Tensor:
        """Calls the layer with the keys in the list, so that Keras sees their shape."""
        return super().__call__(inputs if keys is None else [inputs, keys], **kwargs)

    def build(self, input_shape: Any) -> None:
        if isinstance(input_shape, (list, tuple)) and len(input_shape) == 3:
            input_shape = input_shape[:2]
        queries, keys = sequences.check_shapes(input_shape, "queries", "keys")
        units = self.num_units
        self._build_child(self.gru_cell, [None, base.static_width("keys", keys)])
        self._build_child(self.activation, [None, units])
        with tf.name_scope("agru_cell"):
            self.agru_cell.build([[None, units], [None, units], [None, 1]])
        self.attention_weight = self.add_weight(
            "attention_weight",
            [units, base.static_width("queries", queries)],
            initializer=initializers.clone(self.initializer, 3),
            regularizer=self.regularizer,
        )
        super().build(input_shape)

    def call(self, inputs: Any, mask: Any = None) -> tf.Tensor:
        base.require_floating("inputs", inputs[:2])
        queries, keys, mask = _arguments(inputs, mask)
        interests = self._interests(keys, mask)  # [time, batch, units], float32
        scores = self._scores(queries, interests, mask)  # [time, batch]
        start = tf.zeros([tf.shape(keys)[0], self.num_units], interests.dtype)
        # A score of 0 keeps the state, so this recurrence needs no mask.
        states = rnn_with_attention.run_cell(self.agru_cell, interests, scores, start)
        state = rnn_with_attention.last_state(states, start)
        return tf.cast(state, self.compute_dtype)

    def _activate(self, candidate: tf.Tensor) -> tf.Tensor:
        return self.activation(candidate)

    def _interests(self, keys: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
        """Returns the states of the first recurrence, `[time, batch, units]`."""
        keys = rnn_with_attention.swap_batch_and_time(keys)
        start = tf.zeros([tf.shape(keys)[1], self.num_units], self.variable_dtype)
        if mask is None:
            return rnn_with_attention.scan(
                lambda state, step: self.gru_cell(step, state)[0], keys, start
            )
        mask = tf.transpose(mask)[:, :, tf.newaxis]  # [time, batch, 1]
        return rnn_with_attention.scan(
            lambda h, step: tf.where(step[1], self.gru_cell(step[0], h)[0], h),
            (keys, mask),
            start,
        )

    def _scores(
        self, queries: tf.Tensor, interests: tf.Tensor, mask: tf.Tensor | None
    ) -> tf.Tensor:
        """Returns the attention score of each step, `[time, batch]`."""
        weight = tf.cast(self.attention_weight, self.compute_dtype)
        wanted = tf.matmul(queries, weight, transpose_b=True)  # [batch, units]
        logits = tf.reduce_sum(interests * tf.cast(wanted, interests.dtype), axis=-1)
        return tf.transpose(sequences.masked_softmax(tf.transpose(logits), mask))

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        return None

    def compute_output_shape(self, input_shape: Any) -> tf.TensorShape:
        return tf.TensorShape(input_shape[0])[:1].concatenate(self.num_units)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_units": self.num_units,
            "att_type": self.att_type,
            "activation": activations.serialize(self.activation),
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(sizes.dim, "AUGRU"), [sizes.feature, sizes.stack]


def _orthogonal(initializer: Any) -> Any:
    """Returns the recurrent kernel's initializer, with the layer's seed if it has one.

    It always has a seed, since a sharded kernel is drawn once per shard.
    """
    seed = getattr(initializer, "seed", None)
    # After the seeds of the other kernels.
    seed = seed + 4 if isinstance(seed, int) else randrange(2**31)
    return tf_keras.initializers.Orthogonal(seed=seed)


def _arguments(inputs: Any, mask: Any) -> tuple[tf.Tensor, tf.Tensor, Any]:
    """Returns queries, dense keys and the mask, which can be passed in three ways."""
    if len(inputs) == 3:
        if mask is not None and not isinstance(mask, (list, tuple)):
            raise ValueError(
                "`mask` must be None when `inputs` has a mask as its third element. "
                f"Received: mask={mask}."
            )
        mask = inputs[2]
    keys, mask = masks.dense_sequence("keys", inputs[1], mask, position=1)
    return inputs[0], keys, mask
