"""Losses that are means over examples."""

import tensorflow as tf

from monolith_tf.losses import reduction
from monolith_tf.types import Tensor


def log_loss(labels: Tensor, logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of the sigmoid cross entropy.

        loss = sum(w * (softplus(logits) - labels * logits)) / sum(w)

    To leave out examples without labels, use `sigmoid_loss` with a `mask`.

    Args:
      labels: `[batch]` or `[batch, 1]`, from 0 to 1.
      logits: Like `labels`.
      weights: Like `labels`, optional.

    Returns:
      A scalar; 0 if the weights sum to 0, NaN if an example has a label outside [0, 1]
      and a weight other than 0.

    Raises:
      ValueError: If the shapes are not as above.

    Example:
      >>> float(log_loss([1.0, 0.0], [0.0, 0.0]))
      0.6931471824645996
    """
    labels = reduction.column("labels", labels)
    logits = reduction.column("logits", logits)
    reduction.check_same_shape("labels", labels, "logits", logits)
    weights = reduction.weights_like(logits, weights)
    losses = reduction.sigmoid_cross_entropy(labels, logits, weights)
    return reduction.reduce(losses, weights, "mean")


def mse(labels: Tensor, predictions: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of the squared error, `sum(w * (p - y)^2) / sum(w)`.

    Args:
      labels: `[batch]` or `[batch, 1]`.
      predictions: Like `labels`.
      weights: Like `labels`, optional.

    Returns:
      A scalar; 0 if the weights sum to 0.

    Raises:
      ValueError: If the shapes are not as above.
    """
    labels = reduction.column("labels", labels)
    predictions = reduction.column("predictions", predictions)
    reduction.check_same_shape("labels", labels, "predictions", predictions)
    losses = tf.math.squared_difference(predictions, labels)
    return reduction.reduce(losses, reduction.weights_like(losses, weights), "mean")
