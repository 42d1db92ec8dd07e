"""A learned bias."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.types import Identifier

_BIAS_MODES = ("full", "channel")
_DATA_FORMATS = ("channels_last", "channels_first")


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class AddBias(base.Layer):
    """Adds a bias, `y = x + bias`.

    Args:
      initializer: Initializer of the bias; None is "zeros".
      regularizer: Penalty on the bias.
      bias_mode: "full" for a bias of the input's shape without the batch; "channel" for
        one number per channel.
      data_format: Where the channels are: "channels_last" or "channels_first", right
        after the batch. A full bias does not depend on it.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Call arguments:
      inputs: Rank 2 to 5; the axes of the bias are known at build time.
      data_format: Overrides the constructor's.

    Output shape: that of the input.

    Raises:
      ValueError: If a name is unknown, the rank is not from 2 to 5, or an axis of the
        bias is unknown.

    Example:
      >>> AddBias(initializer="ones")(tf.zeros([1, 2])).numpy()
      array([[1., 1.]], dtype=float32)
    """

    def __init__(
        self,
        initializer: Identifier = None,
        regularizer: Identifier = None,
        bias_mode: str = "full",
        data_format: str = "channels_last",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        _check_name("bias_mode", bias_mode, _BIAS_MODES)
        _check_name("data_format", data_format, _DATA_FORMATS)
        self.initializer = initializers.get(initializer, "zeros")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.bias_mode = bias_mode
        self.data_format = data_format

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = tf.TensorShape(input_shape)
        if shape.rank is None or not 2 <= shape.rank <= 5:
            raise ValueError(
                f"`inputs` must have rank 2 to 5. Received: inputs.shape={shape}."
            )
        axes = list(range(1, shape.rank))
        if self.bias_mode == "channel":
            axes = [_channel_axis(self.data_format)]
        self.bias = self.add_weight(
            "bias",
            [base.static_width("inputs", shape, axis) for axis in axes],
            initializer=initializers.clone(self.initializer),
            regularizer=self.regularizer,
        )
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, data_format: str | None = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        data_format = data_format or self.data_format
        _check_name("data_format", data_format, _DATA_FORMATS)
        bias = tf.convert_to_tensor(self.bias)
        if self.bias_mode == "channel" and data_format == "channels_first":
            bias = tf.reshape(bias, [-1] + [1] * (inputs.shape.rank - 2))
        return inputs + bias

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "bias_mode": self.bias_mode,
            "data_format": self.data_format,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(), sizes.stack


def _channel_axis(data_format: str) -> int:
    return -1 if data_format == "channels_last" else 1


def _check_name(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(
            f"`{name}` must be one of {', '.join(known)}. Received: {name}={value!r}."
        )
