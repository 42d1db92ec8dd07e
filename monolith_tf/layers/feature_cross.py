"""One cross layer of DCN-V2, with two separate inputs."""

import warnings
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.types import Identifier


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class FeatureCross(base.Layer):
    """Multiplies the first layer's input by a map of the previous layer's output.

        h = pre_activation(x @ kernel + bias)                   # full rank
        h = pre_activation((x @ down_kernel) @ kernel + bias)   # with a projection
        y = x0 * (h + diag_scale * x) + x

    Source: Wang et al., "DCN V2", WWW 2021, equations 1 and 2 (arXiv:2008.13535).

    Args:
      projection_dim: Rank of the kernel, at least 1; None for a full one. A rank above
        half the width saves no work and causes a warning.
      diag_scale: Added to the kernel's diagonal, at least 0; None is 0.
      use_bias: Adds a bias.
      pre_activation: Anything `layers.activations.get` takes, applied to the map of `x`
        but not to the diagonal; None is linear.
      kernel_initializer: Initializer of the kernels; None is "glorot_uniform".
      bias_initializer: Initializer of the bias; None is "zeros".
      kernel_regularizer: Penalty on the kernels.
      bias_regularizer: Penalty on the bias.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Call arguments:
      x0: The first layer's input, `[batch, ..., dim]`, `dim` known at build time.
      x: The previous layer's output, of the same shape; None means `x0`.

    Output shape: that of `x0`.

    Raises:
      ValueError: If an argument is out of range or the two inputs differ in shape.

    Example:
      >>> x0 = tf.ones([8, 10])
      >>> x1 = FeatureCross()(x0)
      >>> FeatureCross(projection_dim=4)(x0, x1).shape
      TensorShape([8, 10])
    """

    def __init__(
        self,
        projection_dim: int | None = None,
        diag_scale: float | None = 0.0,
        use_bias: bool = True,
        pre_activation: Identifier = None,
        kernel_initializer: Identifier = "glorot_uniform",
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if projection_dim is not None:
            base.require_positive("projection_dim", projection_dim)
        if diag_scale is not None and diag_scale < 0.0:
            raise ValueError(
                f"`diag_scale` must be at least 0. Received: diag_scale={diag_scale}."
            )
        self.projection_dim = projection_dim
        self.diag_scale = diag_scale
        self.use_bias = use_bias
        self.pre_activation = activations.get(
            pre_activation, name="pre_activation", dtype=self.dtype_policy
        )
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer, "zeros")
        self.kernel_regularizer = tf_keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = tf_keras.regularizers.get(bias_regularizer)
        self.supports_masking = True

    def build(self, input_shape: tf.TensorShape) -> None:
        dim = base.static_width("x0", input_shape)
        rows = dim
        if self.projection_dim is not None:
            rows = self.projection_dim
            if rows > dim // 2:
                warnings.warn(
                    "`projection_dim` above half the width costs more than a full "
                    f"kernel. Received: projection_dim={rows}, width={dim}.",
                    stacklevel=2,
                )
            self.down_kernel = self._add_kernel("down_kernel", [dim, rows], 0)
        self.kernel = self._add_kernel("kernel", [rows, dim], 1)
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                [dim],
                initializer=initializers.clone(self.bias_initializer),
                regularizer=self.bias_regularizer,
            )
        self._build_child(self.pre_activation, input_shape)
        super().build(input_shape)

    def _add_kernel(self, name: str, shape: list[int], place: int) -> tf.Variable:
        return self.add_weight(
            name,
            shape,
            initializer=initializers.clone(self.kernel_initializer, place),
            regularizer=self.kernel_regularizer,
        )

    def call(self, x0: tf.Tensor, x: tf.Tensor | None = None) -> tf.Tensor:
        base.require_floating("x0", x0)
        x = x0 if x is None else tf.cast(x, self.compute_dtype)
        if not x0.shape.is_compatible_with(x.shape):
            raise ValueError(
                "`x0` and `x` must have the same shape. "
                f"Received: x0.shape={x0.shape}, x.shape={x.shape}."
            )
        hidden = x
        if self.projection_dim is not None:
            hidden = base.matmul(hidden, self.down_kernel)  # [batch, ..., projection]
        hidden = base.matmul(hidden, self.kernel)  # [batch, ..., dim]
        if self.use_bias:
            hidden = tf.nn.bias_add(hidden, self.bias)
        if self.pre_activation is not None:
            hidden = self.pre_activation(hidden)
        if self.diag_scale:
            hidden += self.diag_scale * x
        return x0 * hidden + x

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "projection_dim": self.projection_dim,
            "diag_scale": self.diag_scale,
            "use_bias": self.use_bias,
            "pre_activation": activations.serialize(self.pre_activation),
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": tf_keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "bias_regularizer": tf_keras.regularizers.serialize(self.bias_regularizer),
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(2), sizes.flat
