"""Deep and cross network, second version."""

import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.models import base
from monolith_tf.models import tower
from monolith_tf.models.params import DCNParams


class DCN(base.Model):
    """A cross stack and a deep tower over one concatenated input, and one logit.

        x_{l+1} = x0 * (W x_l + b) + x_l
        logit   = w^T [x_L | deep(x0)]

    Source: Wang et al., "DCN V2", WWW 2021, parallel form (arXiv:2008.13535).
    """

    Params = DCNParams

    def __init__(self, params: DCNParams) -> None:
        super().__init__(name="dcn")
        self._label = params.label
        self._cross = [layers.FeatureCross() for _ in range(params.num_cross_layers)]
        self._deep = tower.hidden(
            params.hidden_units,
            dropout=params.dropout,
            batch_norm=params.batch_norm,
            momentum=0.99,
            epsilon=1e-3,
        )
        self._logit = tf_keras.layers.Dense(1)

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        x0 = inputs.concat()  # [batch, width]
        cross = x0
        for layer in self._cross:
            cross = layer(x0, cross)
        both = tf.concat([cross, self._deep(x0)], axis=-1)
        logits = self._logit(both)[:, 0]  # [batch]
        predictions = {self._label: tf.sigmoid(logits)}
        if mode is base.Mode.PREDICT:
            return base.EstimatorSpec(mode=mode, predictions=predictions)
        loss = losses.log_loss(inputs.labels[self._label], logits, inputs.weights)
        return base.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)
