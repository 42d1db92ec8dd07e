"""Attention of a target over a behaviour sequence, as in DIN."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers import mlp
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import masks
from monolith_tf.layers.parts import sequences
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class DIN(base.Layer):
    """Scores each step of a sequence against a query and sums the steps by score.

        z_t = [q | keys_t | q - keys_t | q * keys_t]         # [4 * dim]
        a_t = attention_mlp(z_t)                             # a number
        y   = sum_t a_t * keys_t

    The scores are not normalized by a softmax, so the sum keeps the strength of an
    interest. A masked step has the score 0. The MLP normalizes its weights, and its
    last layer is linear.

    Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction",
    KDD 2018, section 4.3 (arXiv:1706.06978).

    Args:
      hidden_units: Widths of the attention MLP; the last must be 1.
      activation: Activation of its hidden layers; None is linear.
      initializer: Initializer of its kernels; None is "glorot_normal".
      regularizer: Penalty on its kernels.
      mode: "sum" for the sum; anything else for the steps `a_t * keys_t` themselves.
      decay: Divides the scores by `sqrt(dim)`.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Call arguments:
      inputs: List of queries and keys; the keys may be ragged.
      mask: `[batch, time]`, bool or numeric, valid where at least 1.

    Input shape: `[batch, dim]` and `[batch, time, dim]`.
    Output shape: `[batch, dim]`, or `[batch, time, dim]` where `mode` is not "sum".

    Raises:
      ValueError: If `hidden_units` does not end in 1, the input is not such a list, its
        widths differ, or ragged keys come with a mask.

    Example:
      >>> DIN([16, 1], "relu")([tf.ones([8, 4]), tf.ones([8, 20, 4])]).shape
      TensorShape([8, 4])
    """

    def __init__(
        self,
        hidden_units: Sequence[int],
        activation: Identifier = None,
        initializer: Identifier = None,
        regularizer: Identifier = None,
        mode: str = "sum",
        decay: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_units = mlp.check_widths("hidden_units", hidden_units)
        if self.hidden_units[-1] != 1:
            raise ValueError(
                "`hidden_units` must end in 1, the width of a score. "
                f"Received: hidden_units={list(self.hidden_units)}."
            )
        self.activation = activations.get(activation)
        self.initializer = initializers.get(initializer, "glorot_normal")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.mode = mode
        self.decay = decay
        self.supports_masking = True
        self.attention_mlp = mlp.MLP(
            hidden_units,
            activations=[self.activation] * (len(hidden_units) - 1) + [None],
            initializers=self.initializer,
            kernel_regularizer=self.regularizer,
            name="attention_mlp",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape: Shapes) -> None:
        queries, keys = sequences.check_shapes(input_shape, "queries", "keys")
        dim = base.static_width("queries", queries)
        if keys[-1] != dim:
            raise ValueError(
                "`queries` and `keys` must have the same width. "
                f"Received: queries.shape={queries}, keys.shape={keys}."
            )
        self._build_child(self.attention_mlp, [None, 4 * dim])
        super().build(input_shape)

    def call(self, inputs: Nest, mask: Nest = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        queries, keys = inputs
        if isinstance(keys, tf.RaggedTensor) and mask is None:
            return self._call_ragged(queries, keys)
        keys, mask = masks.dense_sequence("keys", keys, mask, position=1)
        steps = tf.broadcast_to(queries[:, tf.newaxis, :], tf.shape(keys))
        scores = self._scores(steps, keys)  # [batch, time]
        if mask is not None:
            scores = tf.where(mask, scores, tf.zeros_like(scores))
        if self.mode == "sum":
            return tf.linalg.matvec(keys, scores, transpose_a=True)
        return scores[:, :, tf.newaxis] * keys

    def _call_ragged(self, queries: tf.Tensor, keys: tf.RaggedTensor) -> tf.Tensor:
        """Scores only the valid steps, without padding."""
        rows, steps = keys.value_rowids(), keys.flat_values  # [steps], [steps, dim]
        scores = self._scores(tf.gather(queries, rows), steps)
        scored = scores[:, tf.newaxis] * steps
        if self.mode == "sum":
            return tf.math.unsorted_segment_sum(scored, rows, keys.nrows())
        return keys.with_flat_values(scored).to_tensor()

    def _scores(self, queries: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
        """Returns the score of every step, `[...]`, of `[..., dim]` each."""
        dim = queries.shape[-1]
        both = [queries, keys, queries - keys, queries * keys]
        features = tf.reshape(tf.concat(both, axis=-1), [-1, 4 * dim])
        scores = tf.reshape(self.attention_mlp(features), tf.shape(keys)[:-1])
        return scores / dim**0.5 if self.decay else scores

    def compute_mask(self, inputs: Nest, mask: Nest = None) -> Nest:
        if self.mode == "sum":
            return None
        return masks.dense_sequence("keys", inputs[1], mask, position=1)[1]

    def compute_output_shape(self, input_shape: Shapes) -> tf.TensorShape:
        return tf.TensorShape(input_shape[0 if self.mode == "sum" else 1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "hidden_units": list(self.hidden_units),
            "activation": activations.serialize(self.activation),
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "mode": self.mode,
            "decay": self.decay,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls([2, 1], "prelu"), [sizes.feature, sizes.stack]
