"""Corrects logits for the sampling of the training data."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import input_shapes
from monolith_tf.types import Identifier
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class LogitCorrection(base.Layer):
    """Corrects logits for sampled negatives and for positives that are also negatives.

        y = logits                       # log(sigmoid(logits)) with sample_bias
        y = activation(y - log(sample_rate))

    With a loss on the corrected logits, the raw ones are calibrated to the distribution
    before sampling: keeping negatives with probability `sample_rate` raises the odds by
    `1 / sample_rate`; a stream in which each positive also appears once as a negative
    turns the probability `p` into `p / (1 + p)`, whose odds are `p`. The layer corrects
    in every call, so serve the raw logits. It computes and returns float32, also under
    mixed precision.

    Source: Ktena et al., "Addressing Delayed Feedback for Continuous Training with
    Neural Networks in CTR Prediction", RecSys 2019, fake negative calibration
    (arXiv:1907.06558).

    Args:
      activation: Applied to the corrected logits; None is linear.
      sample_bias: Corrects for positives that are also negatives.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Call arguments:
      inputs: Logits, or a list of logits and sample rates; a rate is above 0, and 1
        changes nothing.

    Input shape: `[batch]` or `[batch, heads]`; the rates `[batch]`, `[batch, 1]` or the
    shape of the logits.
    Output shape: that of the logits.

    Raises:
      ValueError: If the input is not such a tensor or list.

    Example:
      >>> LogitCorrection()([tf.constant([0.0]), tf.constant([0.5])]).numpy()
      array([0.6931472], dtype=float32)
    """

    def __init__(
        self, activation: Identifier = None, sample_bias: bool = False, **kwargs: Any
    ) -> None:
        # A rate may be too small for float16, so Keras must not cast the inputs.
        super().__init__(**{"autocast": False} | kwargs)
        self.activation = activations.get(
            activation, name="activation", dtype=self.variable_dtype
        )
        self.sample_bias = sample_bias

    def build(self, input_shape: Shapes) -> None:
        logits, *rates = input_shapes.as_list(input_shape)
        if len(rates) > 1 or any(s.rank not in (1, 2) for s in (logits, *rates)):
            raise ValueError(
                "`inputs` must be logits or `[logits, sample_rate]`, each [batch] or "
                f"[batch, heads]. Received: shapes={[*map(str, (logits, *rates))]}."
            )
        heads = logits[1] if logits.rank == 2 else 1
        for rate in rates:
            if rate.rank == 2 and rate[1] != 1 and rate[1] != heads:
                raise ValueError(
                    "`sample_rate` must have one column or as many as `logits`. "
                    f"Received: logits.shape={logits}, sample_rate.shape={rate}."
                )
        self._build_child(self.activation, logits)
        super().build(input_shape)

    def call(self, inputs: Nest) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        several = isinstance(inputs, (list, tuple))
        # On a variable, `-=` would change the variable itself.
        logits = tf.convert_to_tensor(inputs[0] if several else inputs)
        logits = tf.cast(logits, self.variable_dtype)
        outputs = tf.math.log_sigmoid(logits) if self.sample_bias else logits
        if several and len(inputs) == 2:
            rate = tf.cast(tf.convert_to_tensor(inputs[1]), self.variable_dtype)
            outputs -= tf.math.log(_aligned(rate, logits.shape.rank))
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape: Shapes) -> tf.TensorShape:
        return input_shapes.as_list(input_shape)[0]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "activation": activations.serialize(self.activation),
            "sample_bias": self.sample_bias,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls("prelu", True), (sizes.batch, sizes.features)


def _aligned(rate: tf.Tensor, rank: int) -> tf.Tensor:
    """Returns the rates with the rank of the logits."""
    if rate.shape.rank < rank:
        return rate[:, tf.newaxis]
    return rate[:, 0] if rate.shape.rank > rank else rate
