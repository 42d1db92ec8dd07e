"""Self-attention over features beside a deep tower."""

import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.models import tower
from monolith_tf.models.params import AutoIntParams
from monolith_tf.types import Tensor


class AutoInt(base.Model):
    """Layers of self-attention over features; with a deep tower, AutoInt+.

        a     = softmax(query @ key^T / sqrt(head width)) @ value    # head by head
        x     = relu(layer_norm(a + residual))         # all four are linear maps of x
        logit = w @ flatten(x) + v @ tower(x_0) + bias

    Source: Song et al., "AutoInt", CIKM 2019 (arXiv:1810.11921), with the scale and
    layer normalization.
    """

    Params = AutoIntParams

    def __init__(self, params: AutoIntParams) -> None:
        super().__init__(name="autoint")
        self._label = params.label
        self._attention = [
            _Attention(params.attention_dim, params.num_heads, params.dropout)
            for _ in range(params.num_layers)
        ]
        self._tower = None
        if params.hidden_units:
            self._tower = tower.hidden(params.hidden_units, dropout=params.dropout)
        self._logits = [tf_keras.layers.Dense(1, use_bias=i == 0) for i in range(2)]

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        x = tf.stack(list(inputs.embeddings.values()), axis=1)
        for attention in self._attention:
            x = attention(x)  # [batch, features, attention_dim]
        logits = self._logits[0](tf.reshape(x, [-1, x.shape[1] * x.shape[2]]))
        if self._tower is not None:
            logits += self._logits[1](self._tower(inputs.concat()))
        logits = logits[:, 0]  # [batch]
        predictions = {self._label: tf.sigmoid(logits)}
        if mode is base.Mode.PREDICT:
            return base.EstimatorSpec(mode=mode, predictions=predictions)
        loss = losses.log_loss(inputs.labels[self._label], logits, inputs.weights)
        return base.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)


class _Attention(tf_keras.layers.Layer):
    """One layer, from `[batch, features, any]` to `[batch, features, dim]`."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self._num_heads = num_heads
        self._scale = (dim // num_heads) ** -0.5
        # One matrix product for query, key, value and residual.
        self._maps = tf_keras.layers.Dense(4 * dim, use_bias=False)
        self._dropout = layers.Dropout(dropout)
        self._norm = layers.LayerNorm()

    def call(self, inputs: Tensor) -> Tensor:
        *parts, residual = tf.split(self._maps(inputs), 4, axis=-1)
        query, key, value = (self._split(part) for part in parts)
        scores = self._scale * tf.matmul(query, key, transpose_b=True)
        weights = self._dropout(tf.nn.softmax(scores))
        attended = tf.transpose(weights @ value, [0, 2, 1, 3])
        attended = tf.reshape(attended, tf.shape(residual))
        return tf.nn.relu(self._norm(attended + residual))

    def _split(self, part: Tensor) -> Tensor:
        """Returns `[batch, heads, features, dim / heads]`."""
        features, dim = part.shape[1:]
        shape = [-1, features, self._num_heads, dim // self._num_heads]
        return tf.transpose(tf.reshape(part, shape), [0, 2, 1, 3])
