"""The compressed interaction network of xDeepFM."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers import functional
from monolith_tf.layers import mlp
from monolith_tf.layers.functional import forms
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.types import Identifier


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class CIN(base.Layer):
    """Crosses the fields with each other, one order higher with every layer.

        x_l[o, d] = activation(
            sum_{h, j} kernel_l[h * fields + j, o] * x_{l-1}[h, d] * x_0[j, d]
            + bias_l[o])                          # x_0 the input; the last layer linear
        y = [sum(x_1, axis=-1) | sum(x_2, axis=-1) | ...]

    The batch size may differ from call to call.

    Source: Lian et al., "xDeepFM", KDD 2018, section 3.1 (arXiv:1803.05170), without
    bias and activation.

    Args:
      hidden_uints: Maps of every layer, first to last. Set this or `hidden_units`.
      activation: Activation of every layer but the last, None is linear. It is called
        on `[batch, dim, maps]`, which matters if it is not elementwise.
      initializer: Initializer of the kernels; None is "glorot_uniform".
      regularizer: Penalty on the kernels.
      fused: True compiles the network with XLA and holds the products of one block of
        the batch at a time; it compiles once per batch size, and batches are padded to
        few sizes. False does neither; "auto" is True for networks large enough to
        benefit. Results agree up to rounding. The fused form has only first-order
        gradients; exports use the plain form.
      hidden_units: Another spelling of `hidden_uints`.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, fields, dim]`, the last two known at build time.
    Output shape: `[batch, sum of hidden_uints]`.

    Raises:
      ValueError: If not exactly one of `hidden_uints` and `hidden_units` is set, it is
        empty or has a width below 1, or `fused` is unknown.

    Example:
      >>> CIN([32, 16], activation="relu")(tf.ones([8, 26, 16])).shape
      TensorShape([8, 48])
    """

    def __init__(
        self,
        hidden_uints: Sequence[int] | None = None,
        activation: Identifier = None,
        initializer: Identifier = "glorot_uniform",
        regularizer: Identifier = None,
        fused: bool | str = "auto",
        hidden_units: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (hidden_uints is None) == (hidden_units is None):
            raise ValueError(
                "Exactly one of `hidden_uints` and `hidden_units` must be set. "
                f"Received: hidden_uints={hidden_uints}, hidden_units={hidden_units}."
            )
        if hidden_units is None:
            self._argument = "hidden_uints"
            self.hidden_uints = mlp.check_widths("hidden_uints", hidden_uints or [])
        else:
            self._argument = "hidden_units"
            self.hidden_uints = mlp.check_widths("hidden_units", hidden_units)
        self.activation = activation
        self.activations = [
            activations.get(activation, name=f"act_{i}", dtype=self.dtype_policy)
            for i in range(len(self.hidden_uints) - 1)
        ]
        self.initializer = initializers.get(initializer)
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.fused = forms.check(fused)
        self.input_spec = tf_keras.layers.InputSpec(ndim=3)

    def build(self, input_shape: tf.TensorShape) -> None:
        fields = base.static_width("inputs", input_shape, axis=1)
        dim = base.static_width("inputs", input_shape, axis=2)
        self.input_spec = tf_keras.layers.InputSpec(ndim=3, axes={1: fields, 2: dim})
        self.kernels: list[tf.Variable] = []
        self.biases: list[tf.Variable] = []
        maps = fields
        for i, units in enumerate(self.hidden_uints):
            kernel = self.add_weight(
                f"kernel_{i}",
                [maps * fields, units],
                initializer=initializers.clone(self.initializer, i),
                regularizer=self.regularizer,
            )
            self.kernels.append(kernel)
            self.biases.append(
                self.add_weight(f"bias_{i}", [units], initializer="zeros")
            )
            maps = units
        for activation, units in zip(self.activations, self.hidden_uints, strict=False):
            self._build_child(activation, [None, dim, units])
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        return functional.cin(
            inputs, self.kernels, self.biases, self.activations, fused=self.fused
        )

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return tf.TensorShape([input_shape[0], sum(self.hidden_uints)])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "hidden_uints": None,
            "hidden_units": None,
            self._argument: list(self.hidden_uints),
            "activation": activations.serialize(activations.get(self.activation)),
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "fused": self.fused,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls([3, 2], "prelu"), sizes.stack
