"""Deep and cross network, second version."""

import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import losses
from monolith_tf.layers import batch_normalization
from monolith_tf.models import base
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
        self._deep = []
        for units in params.hidden_units:
            self._deep.append(tf_keras.layers.Dense(units))
            if params.batch_norm:
                self._deep.append(batch_normalization.BatchNormalization())
            self._deep.append(tf_keras.layers.Activation("relu"))
            if params.dropout:
                self._deep.append(layers.Dropout(params.dropout))
        self._logit = tf_keras.layers.Dense(1)

    def model_fn(self, inputs: base.Inputs, mode: base.Mode) -> base.EstimatorSpec:
        """See `base.Model.model_fn`."""
        x0 = inputs.concat()  # [batch, width]
        cross = deep = x0
        for layer in self._cross:
            cross = layer(x0, cross)
        for layer in self._deep:
            deep = layer(deep)
        logits = self._logit(tf.concat([cross, deep], axis=-1))[:, 0]  # [batch]
        predictions = {self._label: tf.sigmoid(logits)}
        if mode is base.Mode.PREDICT:
            return base.EstimatorSpec(mode=mode, predictions=predictions)
        loss = losses.log_loss(inputs.labels[self._label], logits, inputs.weights)
        return base.EstimatorSpec(mode=mode, predictions=predictions, loss=loss)
