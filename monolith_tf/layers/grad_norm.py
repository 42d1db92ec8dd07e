"""Weights that keep the gradients of several losses at one size."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from monolith_tf.layers.parts import base
from monolith_tf.types import Nest
from monolith_tf.types import Shapes


@tf_keras.utils.register_keras_serializable(package="monolith_tf")
class GradNorm(base.Layer):
    """Learns the weights of several losses from the sizes of their gradients.

        w = softmax(grad_norm_weights)                    # one per loss
        g_i = |d loss_i / d shared_tensors|               # a constant, over all entries
        average = mean_i(w_i * g_i)                       # a constant
        diff_i = abs(w_i * g_i - average)                 # / (average + epsilon)
        gnorm_loss = scale * sum_i diff_i ** loss_pow     # trains only the weights
        weighted_loss = sum_i w_i * loss_i                # trains the rest

    The weights sum to 1. Unlike in the paper, training rates have no effect.

    Source: Chen et al., "GradNorm", ICML 2018 (arXiv:1711.02257).

    Args:
      loss_names: Names of the losses, distinct, one or more.
      scale: Factor of `gnorm_loss`.
      loss_pow: Exponent of the differences.
      relative_diff: Divides the differences by the average.
      epsilon: Keeps that division finite.
      **kwargs: Arguments of `tf_keras.layers.Layer`.

    Call arguments:
      losses: One scalar per name.
      shared_tensors: The tensor, or list of tensors, that all losses are computed from.
        A loss that does not depend on one has a zero gradient there.
      tape: A persistent `tf.GradientTape` that has watched `shared_tensors`. Optional
        inside a `tf.function`.

    Returns from a call: `gnorm_loss` and `weighted_loss`, float32 scalars.

    Raises:
      ValueError: If names or losses are missing, repeated, or not scalars.
      RuntimeError: If there is no tape in eager mode.

    Example:
      >>> x = tf.constant([[1.0, 2.0]])
      >>> with tf.GradientTape(persistent=True) as tape:
      ...     tape.watch(x)
      ...     losses = [tf.reduce_sum(x), tf.reduce_sum(2.0 * x)]
      >>> _, weighted = GradNorm(["click", "like"])(losses, x, tape=tape)
      >>> float(weighted)
      4.5
    """

    def __init__(
        self,
        loss_names: Sequence[str],
        scale: float = 1.0,
        loss_pow: float = 2.0,
        relative_diff: bool = False,
        epsilon: float = 1e-6,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        names = [] if isinstance(loss_names, str) else list(loss_names)
        if not names or len(set(names)) != len(names):
            raise ValueError(
                "`loss_names` must be a list of distinct names. "
                f"Received: loss_names={loss_names!r}."
            )
        self.loss_names = names
        self.scale = scale
        self.loss_pow = loss_pow
        self.relative_diff = relative_diff
        self.epsilon = epsilon

    def build(self, input_shape: Shapes) -> None:
        self.grad_norm_weights = self.add_weight(
            "grad_norm_weights",
            [len(self.loss_names)],
            initializer="zeros",
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(
        self,
        losses: Sequence[tf.Tensor],
        shared_tensors: Nest,
        tape: tf.GradientTape | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        self._check_losses(losses)
        norms = self.gradient_norms(losses, shared_tensors, tape)  # [losses]
        weights = self.task_weights()  # [losses]
        weighted_norms = weights * norms
        average = tf.stop_gradient(tf.reduce_mean(weighted_norms))
        diff = tf.abs(weighted_norms - average)
        if self.relative_diff:
            diff /= average + self.epsilon
        gnorm_loss = self.scale * tf.reduce_sum(diff**self.loss_pow)
        values = tf.stack([tf.cast(loss, tf.float32) for loss in losses])
        return gnorm_loss, tf.reduce_sum(tf.stop_gradient(weights) * values)

    def _check_losses(self, losses: Sequence[tf.Tensor]) -> None:
        count = len(self.loss_names)
        if len(losses) != count:
            raise ValueError(
                "`losses` must hold one loss per name. "
                f"Received: {len(losses)} losses for {count} loss_names."
            )
        for name, loss in zip(self.loss_names, losses, strict=True):
            if loss.shape.rank != 0:
                raise ValueError(
                    "`losses` must be scalars. "
                    f"Received: shape {loss.shape} for {name!r}. Reduce it first."
                )

    def task_weights(self) -> tf.Tensor:
        """Returns the weight of each loss, `[losses]`; they sum to 1."""
        return tf.nn.softmax(tf.convert_to_tensor(self.grad_norm_weights))

    def gradient_norms(
        self,
        losses: Sequence[tf.Tensor],
        shared_tensors: Nest,
        tape: tf.GradientTape | None = None,
    ) -> tf.Tensor:
        """Returns the norm of each loss's gradient, `[losses]`, as constants.

        Args:
          losses: As in a call.
          shared_tensors: As in a call.
          tape: As in a call.
        """
        shared = tf.nest.flatten(shared_tensors)
        if tape is None and tf.executing_eagerly():
            raise RuntimeError(
                "`tape` is required in eager mode. Received: tape=None. Compute the "
                "losses under `tf.GradientTape(persistent=True)` and pass it."
            )
        norms = []
        for loss in losses:
            if tape is None:
                gradients = tf.gradients(loss, shared)
            else:
                gradients = tape.gradient(loss, shared)
            squares = [
                tf.reduce_sum(tf.square(tf.cast(gradient, tf.float32)))
                for gradient in map(_dense, gradients)
                if gradient is not None
            ]
            norms.append(tf.sqrt(tf.add_n([tf.constant(0.0), *squares])))
        return tf.stop_gradient(tf.stack(norms))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "loss_names": list(self.loss_names),
            "scale": self.scale,
            "loss_pow": self.loss_pow,
            "relative_diff": self.relative_diff,
            "epsilon": self.epsilon,
        }


def _dense(gradient: object) -> Any:
    return None if gradient is None else tf.convert_to_tensor(gradient)
