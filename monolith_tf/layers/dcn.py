"""The cross network of DCN and DCN-V2."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import dropout
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import kernel_norm
from monolith_tf.layers.parts import modes
from monolith_tf.types import Identifier
from monolith_tf.types import Training


class DCNType:
    """The forms of a cross layer."""

    Vector = "vector"
    Matrix = "matrix"
    Mixed = "mixed"


_TYPES = (DCNType.Vector, DCNType.Matrix, DCNType.Mixed)


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class DCN(base.Layer):
    """A stack of cross layers: products of the input and a map of the previous layer.

        vector:  x' = x0 * (x @ kernel) + bias + x           # kernel [dim, 1]
        matrix:  x' = x0 * (x @ kernel + bias) + x           # kernel [dim, dim]
        mixed:   c_e = tanh(tanh(x @ V_e) @ C_e)             # experts of low rank
                 gate = softmax_e(x @ G_e)
                 x' = sum_e gate_e * x0 * (c_e @ U_e^T + bias) + x

    The gate of the mixed form is a softmax over the experts. Dropout applies to all of
    `x'`. Biases are never normalized.

    Source: Wang et al., "Deep & Cross Network", ADKDD 2017 (arXiv:1708.05123), vector;
    Wang et al., "DCN V2", WWW 2021, section 3 (arXiv:2008.13535), matrix and mixed.

    Args:
      layer_num: Number of cross layers, at least 1.
      dcn_type: "vector", "matrix" or "mixed", the values of `DCNType`.
      initializer: Initializer of the kernels; None is "glorot_normal".
      regularizer: Penalty on the kernels.
      num_experts: Experts of a mixed layer, at least 1.
      low_rank: Rank of a mixed layer's experts, at least 1 there.
      allow_kernel_norm: Normalizes the kernels' columns, with learned norms.
      use_dropout: Applies dropout after each layer in training.
      keep_prob: Share of entries that dropout keeps, above 0 and at most 1.
      mode: "train"; or "eval", "predict" or "infer", which switch dropout off.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input and output shape: `[batch, ..., dim]`, `dim` known at build time.

    Raises:
      ValueError: If an argument is out of range or unknown.

    Example:
      >>> DCN(layer_num=2, dcn_type="mixed", num_experts=3, low_rank=4)(
      ...     tf.ones([8, 10])).shape
      TensorShape([8, 10])
    """

    def __init__(
        self,
        layer_num: int = 1,
        dcn_type: str = DCNType.Matrix,
        initializer: Identifier = None,
        regularizer: Identifier = None,
        num_experts: int = 1,
        low_rank: int = 0,
        allow_kernel_norm: bool = False,
        use_dropout: bool = False,
        keep_prob: float = 0.95,
        mode: str = "train",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        base.require_positive("layer_num", layer_num)
        base.require_positive("num_experts", num_experts)
        if dcn_type not in _TYPES:
            raise ValueError(
                f"`dcn_type` must be one of {', '.join(_TYPES)}. "
                f"Received: dcn_type={dcn_type!r}."
            )
        if dcn_type == DCNType.Mixed:
            base.require_positive("low_rank", low_rank)
        if not 0.0 < keep_prob <= 1.0:
            raise ValueError(
                "`keep_prob` must be above 0 and at most 1. "
                f"Received: keep_prob={keep_prob}."
            )
        self.layer_num = layer_num
        self.dcn_type = dcn_type
        self.initializer = initializers.get(initializer, "glorot_normal")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.num_experts = num_experts
        self.low_rank = low_rank
        self.allow_kernel_norm = allow_kernel_norm
        self.use_dropout = use_dropout
        self.keep_prob = keep_prob
        self.mode = modes.check_mode(mode)

    def build(self, input_shape: tf.TensorShape) -> None:
        dim = base.static_width("inputs", input_shape)
        self.input_spec = tf_keras.layers.InputSpec(min_ndim=2, axes={-1: dim})
        self.kernels: list[tf.Variable] = []
        self.kernel_norms: list[tf.Variable] = []
        self.biases: list[tf.Variable] = []
        for i in range(self.layer_num):
            for name, shape in self._kernel_shapes(i, dim).items():
                self._add_kernel(name, shape)
            bias = self.add_weight(f"bias_{i}", [dim], initializer="zeros")
            self.biases.append(bias)
        super().build(input_shape)

    def _kernel_shapes(self, index: int, dim: int) -> dict[str, list[int]]:
        """Returns name -> shape of one layer's kernels."""
        if self.dcn_type == DCNType.Vector:
            return {f"kernel_{index}": [dim, 1]}
        if self.dcn_type == DCNType.Matrix:
            return {f"kernel_{index}": [dim, dim]}
        rank = self.low_rank
        one = {"U": [dim, rank], "V": [dim, rank], "C": [rank, rank], "G": [dim, 1]}
        return {
            f"{key}_{index}_{expert}": shape
            for expert in range(self.num_experts)
            for key, shape in one.items()
        }

    def _add_kernel(self, name: str, shape: list[int]) -> None:
        kernel = self.add_weight(
            name,
            shape,
            initializer=initializers.clone(self.initializer, len(self.kernels)),
            regularizer=self.regularizer,
            experimental_autocast=False,
        )
        self.kernels.append(kernel)
        if self.allow_kernel_norm:
            norm = self.add_weight(
                f"{name}_norm",
                shape[1:],
                initializer=base.fixed(kernel_norm.column_norms(kernel)),
                experimental_autocast=False,
            )
            self.kernel_norms.append(norm)

    def _kernel(self, place: int) -> tf.Tensor:
        """Returns a kernel in the compute type, normalized if enabled."""
        kernel = tf.convert_to_tensor(self.kernels[place])
        if self.allow_kernel_norm:
            kernel = kernel_norm.normalize(kernel, self.kernel_norms[place])
        return tf.cast(kernel, self.compute_dtype)

    def call(self, inputs: tf.Tensor, training: Training = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        flat = inputs.shape.rank == 2
        x0 = inputs if flat else tf.reshape(inputs, [-1, inputs.shape[-1]])
        x = x0  # [rows, dim]
        for i in range(self.layer_num):
            x = self._cross(i, x0, x)
            if self.use_dropout and self.keep_prob < 1.0:
                x = self._drop(x, modes.is_training(training, self.mode))
        return x if flat else tf.reshape(x, tf.shape(inputs))

    def _cross(self, index: int, x0: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Applies one cross layer to `[rows, dim]`."""
        bias = self.biases[index]
        if self.dcn_type == DCNType.Vector:
            return x0 * (x @ self._kernel(index)) + bias + x
        if self.dcn_type == DCNType.Matrix:
            return x0 * (x @ self._kernel(index) + bias) + x
        experts, rank = self.num_experts, self.low_rank
        kernels = [self._kernel(4 * experts * index + j) for j in range(4 * experts)]
        u, v = tf.concat(kernels[0::4], 1), tf.concat(kernels[1::4], 1)
        c, g = tf.stack(kernels[2::4]), tf.concat(kernels[3::4], 1)
        down = tf.reshape(tf.tanh(x @ v), [-1, experts, rank])  # [rows, experts, rank]
        core = tf.tanh(tf.einsum("ber,ers->bes", down, c))  # [rows, experts, rank]
        gates = tf.nn.softmax(tf.cast(x @ g, tf.float32))  # [rows, experts]
        # The gates sum to 1, so the experts' common bias can be added once, and one
        # product maps all experts up.
        mixed = core * tf.cast(gates, core.dtype)[..., tf.newaxis]
        up = tf.matmul(tf.reshape(mixed, [-1, experts * rank]), u, transpose_b=True)
        return x0 * (up + bias) + x

    def _drop(self, x: tf.Tensor, training: Training) -> tf.Tensor:
        rate = 1.0 - self.keep_prob
        return modes.choose(
            training,
            lambda: dropout.drop(x, self._uniform(tf.shape(x)), rate),
            lambda: tf.identity(x),
        )

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "layer_num": self.layer_num,
            "dcn_type": self.dcn_type,
            "initializer": initializers.serialize(self.initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "num_experts": self.num_experts,
            "low_rank": self.low_rank,
            "allow_kernel_norm": self.allow_kernel_norm,
            "use_dropout": self.use_dropout,
            "keep_prob": self.keep_prob,
            "mode": self.mode,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        layer = cls(
            1,
            "mixed",
            num_experts=2,
            low_rank=2,
            allow_kernel_norm=True,
            use_dropout=True,
        )
        return layer, sizes.flat
