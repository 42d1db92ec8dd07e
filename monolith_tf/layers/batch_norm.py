"""Batch normalization that can train on the moving statistics."""

from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import modes
from monolith_tf.types import Identifier
from monolith_tf.types import Training


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class BatchNorm(base.Layer):
    """Normalizes every column by its mean and variance, then scales and shifts it.

        y = (x - m) / sqrt(v + epsilon) * gamma + beta

    In inference `m` and `v` are the moving statistics. In training they are those of
    the batch, over all axes but the last, or a mix of the two; afterwards

        moving = momentum * moving + (1 - momentum) * batch

    An empty batch changes no statistics.

    Source: Ioffe and Szegedy, "Batch normalization", ICML 2015, algorithms 1 and 2
    (arXiv:1502.03167).

    Args:
      momentum: Weight of the past in the moving statistics, from 0 to 1.
      center: Learns `beta`.
      scale: Learns `gamma`.
      moving_mean_initializer: None is "zeros".
      moving_variance_initializer: None is "ones".
      beta_initializer: None is "zeros".
      gamma_initializer: None is "ones".
      regularizer: Penalty on `beta` and on `gamma`.
      training_use_global_dist: Mixes the moving statistics into training.
      global_dist_momentum: Their share of that mix, from 0 to 1.
      stop_grad_of_var_mean: Treats the batch's statistics as constants.
      epsilon: Added to the variance, above 0.
      mode: "train"; or "eval", "predict" or "infer", which use the moving statistics
        even in training. So does a layer that is not `trainable`.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Input and output shape: `[batch, ..., dim]`, `dim` known at build time.

    Raises:
      ValueError: If an argument is out of range or `mode` is unknown.

    Example:
      >>> BatchNorm()(tf.constant([[1.0], [3.0]]), training=True).numpy().round(3)
      array([[-1.],
             [ 1.]], dtype=float32)
    """

    def __init__(
        self,
        momentum: float = 0.99,
        center: bool = True,
        scale: bool = True,
        moving_mean_initializer: Identifier = "zeros",
        moving_variance_initializer: Identifier = "ones",
        beta_initializer: Identifier = "zeros",
        gamma_initializer: Identifier = "ones",
        regularizer: Identifier = None,
        training_use_global_dist: bool = False,
        global_dist_momentum: float = 1.0,
        stop_grad_of_var_mean: bool = False,
        epsilon: float = 1e-6,
        mode: str = "train",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        _check_share("momentum", momentum)
        _check_share("global_dist_momentum", global_dist_momentum)
        if epsilon <= 0.0:
            raise ValueError(f"`epsilon` must be above 0. Received: epsilon={epsilon}.")
        self.momentum = momentum
        self.center = center
        self.scale = scale
        self.moving_mean_initializer = initializers.get(
            moving_mean_initializer, "zeros"
        )
        self.moving_variance_initializer = initializers.get(
            moving_variance_initializer, "ones"
        )
        self.beta_initializer = initializers.get(beta_initializer, "zeros")
        self.gamma_initializer = initializers.get(gamma_initializer, "ones")
        self.regularizer = tf_keras.regularizers.get(regularizer)
        self.training_use_global_dist = training_use_global_dist
        self.global_dist_momentum = global_dist_momentum
        self.stop_grad_of_var_mean = stop_grad_of_var_mean
        self.epsilon = epsilon
        self.mode = modes.check_mode(mode)

    def set_use_global_dist(self, use: bool) -> None:
        """Sets `training_use_global_dist` for functions traced from now on."""
        self.training_use_global_dist = use

    def build(self, input_shape: tf.TensorShape) -> None:
        dim = base.static_width("inputs", input_shape)
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self._add("gamma", dim, self.gamma_initializer)
        if self.center:
            self.beta = self._add("beta", dim, self.beta_initializer)
        self.moving_mean = self._add_moving(
            "moving_mean", dim, self.moving_mean_initializer
        )
        self.moving_variance = self._add_moving(
            "moving_variance", dim, self.moving_variance_initializer
        )
        super().build(input_shape)

    def _add(self, name: str, dim: int, initializer: Identifier) -> tf.Variable:
        return self.add_weight(
            name,
            [dim],
            initializer=initializers.clone(initializer),
            regularizer=self.regularizer,
            experimental_autocast=False,
        )

    def _add_moving(self, name: str, dim: int, initializer: Identifier) -> tf.Variable:
        return self.add_weight(
            name,
            [dim],
            initializer=initializers.clone(initializer),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
            experimental_autocast=False,
        )

    def call(self, inputs: tf.Tensor, training: Training = None) -> tf.Tensor:
        base.require_floating("inputs", inputs)
        x = tf.cast(inputs, self.variable_dtype)
        # A frozen layer does not update its statistics, as in Keras.
        trains = self.trainable and modes.is_training(training, self.mode)
        mean, variance = self._statistics(x, trains)
        scale = tf.math.rsqrt(tf.maximum(variance, 0.0) + self.epsilon)
        if self.gamma is not None:
            scale *= self.gamma
        shift = -mean * scale  # [dim], so that the input is read once
        if self.beta is not None:
            shift += self.beta
        return tf.cast(x * scale + shift, self.compute_dtype)

    def _statistics(
        self, x: tf.Tensor, training: Training
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the mean and variance to use; in training, updates the averages."""
        moving = [
            tf.convert_to_tensor(self.moving_mean),
            tf.convert_to_tensor(self.moving_variance),
        ]
        if training is False:
            return moving[0], moving[1]
        source = tf.stop_gradient(x) if self.stop_grad_of_var_mean else x
        batch = tf.nn.moments(source, axes=list(range(x.shape.rank - 1)))
        train = tf.logical_and(training, tf.size(x) > 0)
        # The moments of an empty batch are NaN.
        batch = [tf.where(train, b, m) for b, m in zip(batch, moving, strict=True)]
        share = self.global_dist_momentum if self.training_use_global_dist else 0.0
        used = [
            share * m + (1.0 - share) * b for b, m in zip(batch, moving, strict=True)
        ]
        for variable, b, m in zip(
            (self.moving_mean, self.moving_variance), batch, moving, strict=True
        ):
            variable.assign(m + (1.0 - self.momentum) * (b - m))
        return used[0], used[1]

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "momentum": self.momentum,
            "center": self.center,
            "scale": self.scale,
            "moving_mean_initializer": initializers.serialize(
                self.moving_mean_initializer
            ),
            "moving_variance_initializer": initializers.serialize(
                self.moving_variance_initializer
            ),
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "regularizer": tf_keras.regularizers.serialize(self.regularizer),
            "training_use_global_dist": self.training_use_global_dist,
            "global_dist_momentum": self.global_dist_momentum,
            "stop_grad_of_var_mean": self.stop_grad_of_var_mean,
            "epsilon": self.epsilon,
            "mode": self.mode,
        }

    @classmethod
    def example(cls, sizes: base.Sizes) -> base.Example:
        return cls(), sizes.flat


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value}.")
