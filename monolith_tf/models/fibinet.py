"""Bilinear products of plain and gated features, followed by a deep tower."""

import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.models import tower
from monolith_tf.models.params import FiBiNETParams
from monolith_tf.types import Tensor


class FiBiNET(base.Model):
    """Bilinear products of all pairs of plain features and of gated features.

        g     = squeeze_and_excite(x)
        p_ij  = (x_i @ W) * x_j,  q_ij = (g_i @ V) * g_j      # i < j
        logit = w @ tower([p | q]) + sum of the linear slice + bias

    Source: Huang et al., "FiBiNET", RecSys 2019 (arXiv:1905.09433), with one `W` for
    all pairs ("field-all") and sigmoid gates.
    """

    Params = FiBiNETParams

    def __init__(self, params: FiBiNETParams) -> None:
        super().__init__(name="fibinet")
        self._params = params
        self._gated = _Gated(params.reduction)
        self._products = [_Products(), _Products()]
        self._tower = tower.hidden(params.hidden_units, dropout=params.dropout)
        self._logit = tf_keras.layers.Dense(1)

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        params, slices = self._params, inputs.slices.values()
        x = tf.stack([row[params.vector] for row in slices], axis=1)
        products = [
            of(features)
            for of, features in zip(self._products, [x, self._gated(x)], strict=True)
        ]
        deep = self._tower(tf.concat(products, axis=1))
        logits = tf.add_n([row[params.linear] for row in slices])  # [batch, 1]
        logits = (logits + self._logit(deep))[:, 0]
        predictions = {params.label: tf.sigmoid(logits)}
        if mode is base.Mode.PREDICT:
            return base.EstimatorSpec(mode=mode, predictions=predictions)
        loss = losses.log_loss(inputs.labels[params.label], logits, inputs.weights)
        return base.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)


class _Gated(tf_keras.layers.Layer):
    """Squeeze and excitation over any number of features."""

    def __init__(self, reduction: int) -> None:
        super().__init__()
        self._reduction = reduction

    def build(self, input_shape: tf.TensorShape) -> None:
        features = input_shape[1]
        self._gates = layers.SeNet(
            features, max(1, features // self._reduction), out_type="stack"
        )
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        return self._gates(inputs)


class _Products(tf_keras.layers.Layer):
    """From `[batch, features, dim]` to all pairs, `[batch, pairs * dim]`."""

    def build(self, input_shape: tf.TensorShape) -> None:
        self._map = tf_keras.layers.Dense(input_shape[-1], use_bias=False)
        super().build(input_shape)

    def call(self, inputs: Tensor) -> Tensor:
        mapped = tf.unstack(self._map(inputs), axis=1)
        features = tf.unstack(inputs, axis=1)
        pairs = [
            left * right for i, left in enumerate(mapped) for right in features[i + 1 :]
        ]
        return tf.concat(pairs, axis=1)
