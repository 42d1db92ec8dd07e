"""Checks the columns that users pass, and reduces them to one number."""

import math
from typing import Literal
from typing import TypeAlias

import tensorflow as tf

from monolith_tf.types import Tensor

Reduction: TypeAlias = Literal["sum", "mean"]


def column(name: str, values: Tensor) -> Tensor:
    """Returns `[batch]` or `[batch, 1]` as float32 `[batch]`."""
    tensor = tf.cast(tf.convert_to_tensor(values), tf.float32)
    if tensor.shape.rank == 2 and tensor.shape[1] in (1, None):
        tensor = tf.squeeze(tensor, axis=1)
    if tensor.shape.rank != 1:
        raise ValueError(
            f"`{name}` must have shape [batch] or [batch, 1]. "
            f"Received: {name} of shape {tensor.shape}."
        )
    return tensor


def check_same_shape(name: str, tensor: Tensor, other: str, expected: Tensor) -> None:
    """Raises ValueError if the static shapes cannot be equal."""
    if not tensor.shape.is_compatible_with(expected.shape):
        raise ValueError(
            f"`{name}` must have the shape of `{other}`, {expected.shape}. "
            f"Received: {name} of shape {tensor.shape}."
        )


def weights_like(
    losses: Tensor, weights: Tensor | None, other: str = "labels"
) -> Tensor:
    """Checks `weights` and returns them as `[batch]`; ones if there are none."""
    if weights is None:
        return tf.ones_like(losses)
    weights = column("weights", weights)
    check_same_shape("weights", weights, other, losses)
    return weights


def sigmoid_cross_entropy(labels: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
    """Returns the loss of each example `[batch]`.

    NaN for a label that counts and is outside [0, 1], so that training does not use it.
    """
    outside = tf.logical_or(labels < 0.0, labels > 1.0)
    wrong = tf.logical_and(outside, tf.not_equal(weights, 0.0))
    labels = tf.where(wrong, math.nan, labels)
    return tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)


def reduce(losses: Tensor, weights: Tensor, reduction: Reduction) -> Tensor:
    """Returns the weighted sum or mean; the mean is 0 if the `weights` sum to 0."""
    if reduction not in ("sum", "mean"):
        raise ValueError(
            f"`reduction` must be 'sum' or 'mean'. Received: reduction={reduction!r}."
        )
    total = tf.reduce_sum(losses * weights)
    if reduction == "sum":
        return total
    return tf.math.divide_no_nan(total, tf.reduce_sum(weights))
