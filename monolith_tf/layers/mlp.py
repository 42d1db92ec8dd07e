"""A stack of dense layers."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations as activations_lib
from monolith_tf.layers import batch_normalization
from monolith_tf.layers.dense import Dense
from monolith_tf.layers.dropout import Dropout
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers as initializers_lib


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class MLP(base.Layer):
    """Dense layers with activations and optional batch normalization.

        x = batch_norm_in(x)                      # with batch normalization
        x = dropout_0(activation_0(batch_norm_0(dense_0(x))))
        ...
        y = activation_last(dense_last(x))        # unless `hidden_output`

    Weight normalization with a learned norm is on by default.

    Source: weight normalization, Salimans and Kingma, NIPS 2016 (arXiv:1602.07868);
    batch renormalization, Ioffe, NIPS 2017 (arXiv:1702.03275).

    Args:
      output_dims: Width of every dense layer, first to last.
      activations: A list with one activation (or None) per layer; or one activation for
        all hidden layers, where None means "relu".
      initializers: One kernel initializer for all layers, or a list of at most one per
        layer; None and missing entries are "glorot_uniform".
      kernel_regularizer: Penalty on every kernel.
      use_weight_norm: Normalizes the kernels' columns; see `Dense`.
      use_learnable_weight_norm: Learns the columns' norms; needs `use_weight_norm`.
      use_bias: Adds a bias in every layer; "auto" adds one where no batch normalization
        follows, which would cancel it.
      bias_regularizer: Penalty on every bias.
      enable_batch_normalization: Normalizes the input and the output of every hidden
        layer over the batch.
      batch_normalization_momentum: Weight of the past in the moving statistics.
      batch_normalization_renorm: Uses batch renormalization.
      batch_normalization_renorm_clipping: Its bounds, a dict with `rmax`, `rmin` and
        `dmax`; None for no bounds.
      batch_normalization_renorm_momentum: Its momentum.
      batch_normalization_epsilon: Added to the variances.
      batch_normalization_of_input: Whether batch normalization includes the input.
      dropout: Share of the output of every hidden layer that training drops.
      hidden_output: Makes the last layer a hidden layer too. By default it is linear,
        without batch normalization and dropout.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, ..., width]`, `width` known at build time.
    Output shape: `[batch, ..., output_dims[-1]]`.

    Raises:
      ValueError: If `output_dims` is empty or holds a width below 1, a list has the
        wrong length, or `use_bias` is another string.

    Example:
      >>> MLP([64, 16, 1])(tf.ones([8, 10])).shape
      TensorShape([8, 1])
    """

    def __init__(
        self,
        output_dims: Sequence[int],
        activations: Any = None,
        initializers: Any = None,
        kernel_regularizer: Any = None,
        use_weight_norm: bool = True,
        use_learnable_weight_norm: bool = True,
        use_bias: bool | str = True,
        bias_regularizer: Any = None,
        enable_batch_normalization: bool = False,
        batch_normalization_momentum: float = 0.99,
        batch_normalization_renorm: bool = False,
        batch_normalization_renorm_clipping: Mapping[str, float] | None = None,
        batch_normalization_renorm_momentum: float = 0.99,
        batch_normalization_epsilon: float = 1e-3,
        batch_normalization_of_input: bool = True,
        dropout: float = 0.0,
        hidden_output: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.output_dims = check_widths("output_dims", output_dims)
        self.initializers = per_layer_initializers(initializers, len(output_dims))
        self.kernel_regularizer = tf_keras.regularizers.get(kernel_regularizer)
        self.use_weight_norm = use_weight_norm
        self.use_learnable_weight_norm = use_learnable_weight_norm
        self.use_bias = check_use_bias("use_bias", use_bias)
        self.bias_regularizer = tf_keras.regularizers.get(bias_regularizer)
        self.enable_batch_normalization = enable_batch_normalization
        self.batch_normalization_momentum = batch_normalization_momentum
        self.batch_normalization_renorm = batch_normalization_renorm
        self.batch_normalization_renorm_clipping = batch_normalization_renorm_clipping
        self.batch_normalization_renorm_momentum = batch_normalization_renorm_momentum
        self.batch_normalization_epsilon = batch_normalization_epsilon
        self.batch_normalization_of_input = batch_normalization_of_input
        self.dropout = dropout
        self.hidden_output = hidden_output
        self._num_hidden = len(self.output_dims) - (not hidden_output)
        per_layer = per_layer_activations(
            activations, len(output_dims), self._num_hidden, self.dtype_policy
        )
        self.stack = self._make_stack(per_layer)
        self.activations = per_layer

    def _make_stack(self, activations: list[Any]) -> list[Any]:
        """Returns the sub-layers in the order in which they are called."""
        stack: list[Any] = []
        if self.enable_batch_normalization and self.batch_normalization_of_input:
            stack.append(self._batch_norm("batch_norm_in"))
        for i, units in enumerate(self.output_dims):
            stack.append(self._dense(i, units))
            if self._normalizes(i):
                stack.append(self._batch_norm(f"batch_norm_{i}"))
            if activations[i] is not None:
                stack.append(activations[i])
            if self.dropout and i < self._num_hidden:
                stack.append(Dropout(self.dropout, name=f"dropout_{i}"))
        return stack

    def _normalizes(self, index: int) -> bool:
        """Returns whether batch normalization follows the dense layer `index`."""
        return self.enable_batch_normalization and index < self._num_hidden

    def _dense(self, index: int, units: int) -> Dense:
        return Dense(
            units,
            use_bias=has_bias(self.use_bias, self._normalizes(index)),
            kernel_initializer=initializers_lib.clone(self.initializers[index], index),
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            allow_kernel_norm=self.use_weight_norm,
            kernel_norm_trainable=self.use_learnable_weight_norm,
            name=f"dense_{index}",
            dtype=self.dtype_policy,
        )

    def _batch_norm(self, name: str) -> Any:
        return make_batch_norm(
            name,
            self.dtype_policy,
            self.batch_normalization_momentum,
            self.batch_normalization_renorm,
            self.batch_normalization_renorm_clipping,
            self.batch_normalization_renorm_momentum,
            self.batch_normalization_epsilon,
        )

    def build(self, input_shape: tf.TensorShape) -> None:
        width = base.static_width("inputs", input_shape)
        self.input_spec = tf_keras.layers.InputSpec(min_ndim=2, axes={-1: width})
        shape = tf.TensorShape(input_shape)
        for part in self.stack:
            self._build_child(part, shape)
            if isinstance(part, Dense):
                shape = part.compute_output_shape(shape)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        outputs = inputs
        for part in self.stack:
            if isinstance(part, (Dense, Dropout, tf_keras.layers.BatchNormalization)):
                outputs = part(outputs, training=training)
            else:
                outputs = part(outputs)
        return outputs

    def get_layer(self, index: int) -> Any:
        """Returns one element of the stack.

        Args:
          index: Index in the stack: the batch normalization of the input, then for each
            layer the dense layer, its batch normalization, its activation and its
            dropout, skipping those that do not exist.
        """
        return self.stack[index]

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return tf.TensorShape(input_shape)[:-1].concatenate(self.output_dims[-1])

    def get_config(self) -> dict[str, Any]:
        clipping = self.batch_normalization_renorm_clipping
        return super().get_config() | {
            "output_dims": list(self.output_dims),
            "activations": [activations_lib.serialize(a) for a in self.activations],
            "initializers": [initializers_lib.serialize(i) for i in self.initializers],
            "kernel_regularizer": tf_keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "use_weight_norm": self.use_weight_norm,
            "use_learnable_weight_norm": self.use_learnable_weight_norm,
            "use_bias": self.use_bias,
            "bias_regularizer": tf_keras.regularizers.serialize(self.bias_regularizer),
            "enable_batch_normalization": self.enable_batch_normalization,
            "batch_normalization_momentum": self.batch_normalization_momentum,
            "batch_normalization_renorm": self.batch_normalization_renorm,
            "batch_normalization_renorm_clipping": clipping and dict(clipping),
            "batch_normalization_renorm_momentum": (
                self.batch_normalization_renorm_momentum
            ),
            "batch_normalization_epsilon": self.batch_normalization_epsilon,
            "batch_normalization_of_input": self.batch_normalization_of_input,
            "dropout": self.dropout,
            "hidden_output": self.hidden_output,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls([3, 2], enable_batch_normalization=True), sizes.flat


def make_batch_norm(
    name: str,
    dtype: Any,
    momentum: float,
    renorm: bool,
    renorm_clipping: Mapping[str, float] | None,
    renorm_momentum: float,
    epsilon: float = 1e-3,
) -> Any:
    """Returns a batch normalization, optionally with renormalization."""
    options: dict[str, Any] = {}
    if renorm:
        policy = tf_keras.mixed_precision.Policy(getattr(dtype, "name", dtype))
        if policy.compute_dtype == "float64":
            raise ValueError(
                "`batch_normalization_renorm` must be False in float64, which Keras "
                f"does not support. Received: dtype={dtype}."
            )
        options = {
            "renorm": True,
            "renorm_clipping": renorm_clipping and dict(renorm_clipping),
            "renorm_momentum": renorm_momentum,
        }
    return batch_normalization.BatchNormalization(
        momentum=momentum, epsilon=epsilon, name=name, dtype=dtype, **options
    )


def check_use_bias(name: str, use_bias: bool | str) -> bool | str:
    """Returns `use_bias`; `ValueError` for a string other than "auto"."""
    if isinstance(use_bias, str) and use_bias != "auto":
        raise ValueError(
            f"`{name}` must be True, False or 'auto'. Received: {name}={use_bias!r}."
        )
    return use_bias


def has_bias(use_bias: bool | str, is_normalized: bool) -> bool:
    """Returns whether a dense layer has a bias."""
    return not is_normalized if use_bias == "auto" else bool(use_bias)


def check_widths(name: str, widths: Sequence[int]) -> list[int]:
    """Returns the widths as a list; `ValueError` if empty or one is below 1."""
    if not isinstance(widths, Sequence) or isinstance(widths, str) or not widths:
        raise ValueError(
            f"`{name}` must be a non-empty list of widths. Received: {name}={widths!r}."
        )
    for width in widths:
        base.require_positive(name, width)
    return [int(width) for width in widths]


def per_layer_activations(
    given: Any, count: int, num_hidden: int, dtype: Any
) -> list[Any]:
    """Returns a separate activation or None for each of `count` dense layers.

    A single activation, or None for relu, is that of the first `num_hidden` layers.
    """
    if not isinstance(given, (list, tuple)):
        hidden = ["relu" if given is None else given] * num_hidden
        given = hidden + [None] * (count - num_hidden)
    if len(given) != count:
        raise ValueError(
            "`activations` must have one entry per entry of `output_dims`. "
            f"Received: {len(given)} activations for {count} output_dims."
        )
    return [
        activations_lib.get(one, name=f"act_{i}", dtype=dtype)
        for i, one in enumerate(given)
    ]


def per_layer_initializers(given: Any, count: int) -> list[Any]:
    """Returns one kernel initializer for each of `count` dense layers."""
    if not isinstance(given, (list, tuple)):
        given = [given] * count
    if len(given) > count:
        raise ValueError(
            "`initializers` must not have more entries than `output_dims`. "
            f"Received: {len(given)} initializers for {count} output_dims."
        )
    padded = [*given, *[None] * (count - len(given))]
    return [initializers_lib.get(one) for one in padded]
