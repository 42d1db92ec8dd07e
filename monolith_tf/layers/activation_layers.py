"""Activation layers that Keras lacks, or has only as functions."""

from typing import Any
from typing import ClassVar

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base

_register = tf_keras.utils.register_keras_serializable(package="monolith_tf")


class _Elementwise(base.Layer):
    """Applies one function.

    Input and output shape: any.
    """

    function: ClassVar[Any]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return type(self).function(inputs)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        # Keras' method raises unless a layer with arguments overrides it.
        return super().get_config()

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(), sizes.flat


def _sigmoid2(x: tf.Tensor) -> tf.Tensor:
    return 2.0 * tf.sigmoid(x)


def _hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)


@_register
class Exponential(_Elementwise):
    """`y = exp(x)`."""

    function = staticmethod(tf.exp)


@_register
class Gelu(_Elementwise):
    """`y = x * Phi(x)`, `Phi` the standard normal distribution function, exactly.

    Source: Hendrycks and Gimpel, "Gaussian error linear units" (arXiv:1606.08415).
    """

    function = staticmethod(tf.nn.gelu)


@_register
class HardSigmoid(_Elementwise):
    """`y = clip(0.2 * x + 0.5, 0, 1)`."""

    function = staticmethod(_hard_sigmoid)


@_register
class Linear(_Elementwise):
    """`y = x`."""

    function = staticmethod(tf.identity)


@_register
class Selu(_Elementwise):
    """`y = 1.0507 * (x if x >= 0 else 1.6733 * (exp(x) - 1))`.

    Source: Klambauer et al., "Self-normalizing neural networks", NIPS 2017
    (arXiv:1706.02515).
    """

    function = staticmethod(tf.nn.selu)


@_register
class Sigmoid(_Elementwise):
    """`y = 1 / (1 + exp(-x))`."""

    function = staticmethod(tf.sigmoid)


@_register
class Sigmoid2(_Elementwise):
    """`y = 2 / (1 + exp(-x))`, a gate that is 1 at 0."""

    function = staticmethod(_sigmoid2)


@_register
class Softplus(_Elementwise):
    """`y = log(1 + exp(x))`."""

    function = staticmethod(tf.nn.softplus)


@_register
class Softsign(_Elementwise):
    """`y = x / (1 + abs(x))`."""

    function = staticmethod(tf.nn.softsign)


@_register
class Swish(_Elementwise):
    """`y = x * sigmoid(x)`.

    Source: Ramachandran et al., "Searching for activation functions"
    (arXiv:1710.05941).
    """

    function = staticmethod(tf.nn.silu)


@_register
class Tanh(_Elementwise):
    """`y = tanh(x)`."""

    function = staticmethod(tf.tanh)
