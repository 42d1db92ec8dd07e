"""Keras' batch normalization, with a gradient that reads the batch less often."""

import tensorflow as tf
import tf_keras

from monolith_tf.gradients import custom_gradient
from monolith_tf.types import Nest
from monolith_tf.types import Tensor
from monolith_tf.types import Training


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class BatchNormalization(tf_keras.layers.BatchNormalization):
    """`tf_keras.layers.BatchNormalization`, with faster training on matrices.

    Weights, results and arguments are the same. Inputs other than float32 matrices, and
    renormalization, use Keras' implementation.
    """

    def call(
        self, inputs: Tensor, training: Training = None, mask: Nest = None
    ) -> Tensor:
        """See the class."""
        is_plain = (
            training is True
            and self.trainable
            and mask is None
            and inputs.shape.rank == 2
            and inputs.dtype == self.compute_dtype == tf.float32
            and self.center
            and self.scale
            and not self.renorm
            and self.virtual_batch_size is None
        )
        if not is_plain:
            return self._keras_call(inputs, training, mask)
        outputs, mean, variance = normalize_batch(
            inputs, self.gamma, self.beta, self.epsilon
        )
        # An empty batch changes no statistics.
        share = tf.where(tf.size(inputs) > 0, 1.0 - self.momentum, 0.0)
        self.moving_mean.assign_sub(share * (self.moving_mean - mean))
        self.moving_variance.assign_sub(share * (self.moving_variance - variance))
        return outputs

    def _keras_call(self, inputs: Tensor, training: Training, mask: Nest) -> Tensor:
        """Calls Keras' implementation, except for an empty batch."""
        training = self._get_training_value(training)

        def with_batch() -> Tensor:
            return super(BatchNormalization, self).call(
                inputs, training=training, mask=mask
            )

        size = inputs.shape.num_elements()
        if size or tf.get_static_value(training) in (False, 0):
            return with_batch()
        if size == 0:
            return tf.cast(inputs, self.compute_dtype)
        return tf.cond(
            tf.size(inputs) > 0,
            with_batch,
            lambda: tf.cast(inputs, self.compute_dtype),
        )


def normalize_batch(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalizes columns by their mean and variance over the batch.

        y = (x - mean) / sqrt(variance + epsilon) * gamma + beta

    Columns are summed as products with a row of ones, which is faster than a reduction.
    The gradient of `y` is explicit; mean and variance have none.

    Args:
      x: `[batch, dim]`.
      gamma: `[dim]`.
      beta: `[dim]`.
      epsilon: Added to the variance.

    Returns:
      `y`, and mean and variance, `[dim]`; zeros for an empty batch.
    """

    @custom_gradient
    def normalize(x: Tensor, gamma: Tensor, beta: Tensor) -> Nest:
        batch = tf.shape(x)[0]
        ones = tf.ones([1, batch])
        share = tf.math.divide_no_nan(1.0, tf.cast(batch, tf.float32))

        def sums(columns: Tensor) -> Tensor:
            return tf.matmul(ones, columns)[0]

        mean = share * sums(x)
        centered = x - mean
        variance = share * sums(tf.square(centered))
        inverse = tf.math.rsqrt(variance + epsilon)
        scale = inverse * gamma

        def gradient(upstream: Tensor, *unused: Tensor) -> tuple[Tensor, ...]:
            del unused
            d_beta = sums(upstream)
            d_gamma = inverse * sums(upstream * centered)
            # The gradients through mean and variance, spread over the batch.
            by_mean, by_variance = share * d_beta, share * inverse * d_gamma
            d_x = scale * (upstream - centered * by_variance - by_mean)
            return d_x, d_gamma, d_beta

        return (centered * scale + beta, mean, variance), gradient

    return normalize(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))
