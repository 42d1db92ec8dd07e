"""Two towers over differently gated features, and their bilinear fusion."""

import tensorflow as tf
import tf_keras

from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.models import tower
from monolith_tf.models.params import FinalMLPParams
from monolith_tf.types import Tensor


class FinalMLP(base.Model):
    """Two towers over gated features, fused head by head.

        x_i   = 2 * sigmoid(relu(context_i @ a_i + b_i) @ c_i + d_i) * x    # i = 1, 2
        o_i   = tower_i(x_i)
        logit = w_1 @ o_1 + w_2 @ o_2 + sum over heads h of o_1[h] @ W_h @ o_2[h] + bias

    Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction",
    AAAI 2023 (arXiv:2304.00902), where contexts have separate embeddings.
    """

    Params = FinalMLPParams

    def __init__(self, params: FinalMLPParams) -> None:
        super().__init__(name="final_mlp")
        dense = tf_keras.layers.Dense
        self._label = params.label
        self._contexts = params.contexts
        self._num_heads = params.num_heads
        self._views = [_View(params.gate_units) for _ in params.contexts]
        self._towers = [
            tower.hidden(units, dropout=params.dropout) for units in params.hidden_units
        ]
        self._linear = [dense(1, use_bias=i == 0) for i in range(2)]
        width = params.hidden_units[1][-1] // params.num_heads
        self._maps = [dense(width, use_bias=False) for _ in range(params.num_heads)]

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        x = inputs.concat()  # [batch, width]
        first, second = (
            tower_(view(x, inputs.embeddings[context]))
            for tower_, view, context in zip(
                self._towers, self._views, self._contexts, strict=True
            )
        )
        logits = self._linear[0](first) + self._linear[1](second)  # [batch, 1]
        logits = logits[:, 0] + self._fused(first, second)
        predictions = {self._label: tf.sigmoid(logits)}
        if mode is base.Mode.PREDICT:
            return base.EstimatorSpec(mode=mode, predictions=predictions)
        loss = losses.log_loss(inputs.labels[self._label], logits, inputs.weights)
        return base.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)

    def _fused(self, first: Tensor, second: Tensor) -> Tensor:
        """Returns the sum of the heads' bilinear forms, `[batch]`."""
        heads = zip(
            self._maps,
            tf.split(first, self._num_heads, axis=1),
            tf.split(second, self._num_heads, axis=1),
            strict=True,
        )
        forms = [map_(left) * right for map_, left, right in heads]
        return tf.reduce_sum(tf.concat(forms, axis=1), axis=1)


class _View(tf_keras.layers.Layer):
    """Scales each input number by a gate from 0 to 2, computed from a context."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self._hidden = tf_keras.layers.Dense(units, "relu")

    def build(self, input_shape: tf.TensorShape) -> None:
        self._gate = tf_keras.layers.Dense(input_shape[-1], "sigmoid")
        super().build(input_shape)

    def call(self, inputs: Tensor, context: Tensor) -> Tensor:
        return 2.0 * self._gate(self._hidden(context)) * inputs
