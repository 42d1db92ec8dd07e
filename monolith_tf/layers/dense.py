"""A fully connected layer with weight normalization and a monitor of dead units."""

import copy
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers import activations
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import kernel_norm
from monolith_tf.layers.parts import modes
from monolith_tf.layers.parts import partitioning
from monolith_tf.types import Identifier
from monolith_tf.types import Training


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class Dense(base.Layer):
    """A linear map of the last axis, then an activation.

        y = activation(x @ w + bias)
        w = kernel                                          # plain
        w[:, j] = kernel_norm[j] * kernel[:, j] / |kernel[:, j]|   # normalized

    `kernel_norm` starts as the kernel's column norms, so a normalized layer starts
    equal to a plain one; it is constant unless it is trainable.

    Source: weight normalization, Salimans and Kingma, NIPS 2016, equation 2
    (arXiv:1602.07868).

    Args:
      units: Width of the output, at least 1.
      activation: Anything `layers.activations.get` takes; None is linear.
      use_bias: Adds a bias.
      kernel_initializer: Initializer of the kernel; None is "glorot_uniform".
      bias_initializer: Initializer of the bias; None is "zeros".
      kernel_regularizer: Penalty on the kernel before normalization.
      bias_regularizer: Penalty on the bias.
      allow_kernel_norm: Normalizes the kernel's columns.
      kernel_norm_trainable: Learns the columns' norms; needs `allow_kernel_norm`.
      partitioner: Splits the kernel into blocks of rows, separate variables that a
        parameter server strategy can place on different servers: a callable of shape
        and dtype as in `tf.distribute.experimental.partitioners`.
      inactive_relu_monitor: Tracks how often each unit is above zero in training; only
        for a relu activation.
      inactive_relu_monitor_decay: Weight of the newest batch in that average, above 0
        and at most 1.
      optimizer: Optimizer for this layer's variables instead of the model's: every
        variable has it as its attribute `optimizer`, which a trainer reads.
      kernel_constraint: Projection of the kernel after an update.
      bias_constraint: Projection of the bias after an update.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input shape: `[batch, ..., width]`, `width` known at build time.
    Output shape: `[batch, ..., units]`.

    Raises:
      ValueError: If `units` or the decay is out of range, the monitor is enabled
        without a relu, or a constraint is combined with a partitioner.
      TypeError: If the input is not floating point.

    Example:
      >>> Dense(8, "relu", allow_kernel_norm=True)(tf.ones([4, 3])).shape
      TensorShape([4, 8])
    """

    def __init__(
        self,
        units: int,
        activation: Identifier = None,
        use_bias: bool = True,
        kernel_initializer: Identifier = "glorot_uniform",
        bias_initializer: Identifier = "zeros",
        kernel_regularizer: Identifier = None,
        bias_regularizer: Identifier = None,
        allow_kernel_norm: bool = False,
        kernel_norm_trainable: bool = False,
        partitioner: Identifier = None,
        inactive_relu_monitor: bool = False,
        inactive_relu_monitor_decay: float = 0.1,
        optimizer: Identifier = None,
        kernel_constraint: Identifier = None,
        bias_constraint: Identifier = None,
        **kwargs: Any,
    ) -> None:
        if "input_dim" in kwargs:
            kwargs["input_shape"] = (kwargs.pop("input_dim"),)
        super().__init__(**kwargs)
        base.require_positive("units", units)
        self.units = int(units)
        self.activation = activations.get(
            activation, name="activation", dtype=self.dtype_policy
        )
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer, "zeros")
        self.kernel_regularizer = tf_keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = tf_keras.regularizers.get(bias_regularizer)
        self.allow_kernel_norm = allow_kernel_norm
        self.kernel_norm_trainable = kernel_norm_trainable
        self.partitioner = partitioning.get(partitioner)
        self.inactive_relu_monitor = inactive_relu_monitor
        self.inactive_relu_monitor_decay = inactive_relu_monitor_decay
        self.optimizer = None if optimizer is None else _optimizer(optimizer)
        self.kernel_constraint = tf_keras.constraints.get(kernel_constraint)
        self.bias_constraint = tf_keras.constraints.get(bias_constraint)
        self.supports_masking = True
        self._check_arguments()

    def _check_arguments(self) -> None:
        relu = activations.canonical_name(self.activation) == "relu"
        if self.inactive_relu_monitor and not relu:
            name = activations.canonical_name(self.activation) or self.activation
            raise ValueError(
                "`inactive_relu_monitor` needs `activation='relu'`. "
                f"Received: activation={name!r}."
            )
        decay = self.inactive_relu_monitor_decay
        if not 0.0 < decay <= 1.0:
            raise ValueError(
                "`inactive_relu_monitor_decay` must be above 0 and at most 1. "
                f"Received: inactive_relu_monitor_decay={decay}."
            )
        if self.partitioner is not None and self.kernel_constraint is not None:
            raise ValueError(
                "`kernel_constraint` does not work with `partitioner`, which splits "
                "the kernel into blocks. Received both. Remove one."
            )

    def build(self, input_shape: tf.TensorShape) -> None:
        width = base.static_width("inputs", input_shape)
        self.input_spec = tf_keras.layers.InputSpec(min_ndim=2, axes={-1: width})
        self.kernel = self._add_kernel([width, self.units])
        if self.allow_kernel_norm:
            norms = kernel_norm.column_norms(self._whole_kernel())
            self.kernel_norm = self.add_weight(
                "kernel_norm",
                [self.units],
                initializer=base.fixed(norms),
                trainable=self.kernel_norm_trainable,
                experimental_autocast=False,
            )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                [self.units],
                initializer=initializers.clone(self.bias_initializer),
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.inactive_relu_monitor:
            self._add_monitor()
        output_shape = self.compute_output_shape(input_shape)
        self._build_child(self.activation, output_shape)
        if self.optimizer is not None:
            for variable in self.weights:
                variable.optimizer = self.optimizer
        super().build(input_shape)

    def _add_kernel(self, shape: list[int]) -> tf.Variable:
        """Returns the kernel variable, or the list of its row blocks."""
        initializer = initializers.clone(self.kernel_initializer)
        if self.partitioner is None:
            return self.add_weight(
                "kernel",
                shape,
                initializer=initializer,
                regularizer=self.kernel_regularizer,
                constraint=self.kernel_constraint,
                experimental_autocast=False,
            )
        dtype = tf.as_dtype(self.variable_dtype)
        sizes = partitioning.split_rows(self.partitioner, shape, dtype)
        blocks = tf.split(initializer(shape, dtype=dtype), sizes)
        if self.kernel_regularizer is not None:
            self.add_loss(lambda: self.kernel_regularizer(self._whole_kernel()))
        return [
            self.add_weight(
                f"kernel/part_{i}",
                [size, self.units],
                initializer=base.fixed(block),
                experimental_autocast=False,
            )
            for i, (size, block) in enumerate(zip(sizes, blocks, strict=True))
        ]

    def _whole_kernel(self) -> tf.Tensor:
        """Returns the kernel as one tensor in the variables' type."""
        if self.partitioner is None:
            return tf.convert_to_tensor(self.kernel)
        return tf.concat(list(self.kernel), axis=0)

    def _add_monitor(self) -> None:
        options = {
            "trainable": False,
            "initializer": "zeros",
            "synchronization": tf.VariableSynchronization.ON_READ,
            "experimental_autocast": False,
        }
        self.relu_nonzero_rate = self.add_weight(
            "relu_nonzero_rate",
            [self.units],
            dtype=tf.float32,
            aggregation=tf.VariableAggregation.MEAN,
            **options,
        )
        self.monitor_steps = self.add_weight(
            "monitor_steps",
            [],
            dtype=tf.int64,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            **options,
        )

    def call(self, inputs: tf.Tensor, training: Training = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        outputs = base.matmul(inputs, self.effective_kernel())
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, self.bias)
        if self.activation is not None:
            outputs = self.activation(outputs)
        if self.inactive_relu_monitor:
            self._update_monitor(outputs, modes.is_training(training))
        return outputs

    def effective_kernel(self) -> tf.Tensor:
        """Returns the whole, normalized kernel, which multiplies inputs.

        Its shape is `[width, units]` and its type the compute type.
        """
        kernel = self._whole_kernel()
        if self.allow_kernel_norm:
            kernel = kernel_norm.normalize(kernel, self.kernel_norm)
        return tf.cast(kernel, self.compute_dtype)

    def _update_monitor(self, outputs: tf.Tensor, training: Training) -> None:
        """Moves the average towards this batch's share of outputs above zero."""
        if training is False:
            return
        positive = tf.cast(tf.reshape(outputs, [-1, self.units]) > 0, tf.float32)
        rows = tf.shape(positive)[0]
        rate = tf.reduce_sum(positive, 0) / tf.cast(tf.maximum(rows, 1), tf.float32)
        update = tf.logical_and(training, rows > 0)
        step = self.inactive_relu_monitor_decay * tf.cast(update, tf.float32)
        self.relu_nonzero_rate.assign_add(step * (rate - self.relu_nonzero_rate))
        self.monitor_steps.assign_add(tf.cast(update, tf.int64))

    @property
    def relu_nonzero_rate_debiased(self) -> tf.Tensor:
        """Share of outputs above zero, `[units]`, corrected for the start at zero.

        A unit with 0 is dead; before the first step all units have 0.
        """
        keep = 1.0 - self.inactive_relu_monitor_decay
        steps = tf.cast(self.monitor_steps, tf.float32)
        return tf.math.divide_no_nan(self.relu_nonzero_rate, 1.0 - keep**steps)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return tf.TensorShape(input_shape)[:-1].concatenate(self.units)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": tf_keras.regularizers.serialize(
                self.kernel_regularizer
            ),
            "bias_regularizer": tf_keras.regularizers.serialize(self.bias_regularizer),
            "allow_kernel_norm": self.allow_kernel_norm,
            "kernel_norm_trainable": self.kernel_norm_trainable,
            "partitioner": partitioning.serialize(self.partitioner),
            "inactive_relu_monitor": self.inactive_relu_monitor,
            "inactive_relu_monitor_decay": self.inactive_relu_monitor_decay,
            "optimizer": None
            if self.optimizer is None
            else tf_keras.optimizers.serialize(self.optimizer),
            "kernel_constraint": tf_keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": tf_keras.constraints.serialize(self.bias_constraint),
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        layer = cls(
            2, activation="relu", allow_kernel_norm=True, inactive_relu_monitor=True
        )
        return layer, sizes.flat


def _optimizer(identifier: Identifier) -> tf_keras.optimizers.Optimizer | None:
    """Returns an optimizer from a name, a config dict or an instance."""
    # Keras changes the dict that it receives.
    if isinstance(identifier, dict):
        identifier = copy.deepcopy(identifier)
    return tf_keras.optimizers.get(identifier)
