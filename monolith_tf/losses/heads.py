"""Losses and predictions of one task's output."""

import math

import tensorflow as tf

from monolith_tf.losses import reduction as reductions
from monolith_tf.losses.reduction import Reduction
from monolith_tf.types import Tensor


def sigmoid_loss(
    labels: Tensor,
    logits: Tensor,
    *,
    weights: Tensor | None = None,
    sample_rate: Tensor | float | None = None,
    sample_bias: bool = False,
    mask: Tensor | None = None,
    logit_clip_threshold: float | None = None,
    reduction: Reduction = "sum",
) -> Tensor:
    """Sigmoid cross entropy, corrected for the sampling of the training data.

    `logits` are those of the true distribution. The loss uses the logits of the sampled
    data, so the model learns the true logits from sampled data:

        z = log(sigmoid(logits)) if sample_bias else logits
        z = z - log(sample_rate)
        z = clip(z, -c, c),  c = log((1 - t) / t),  t = logit_clip_threshold
        loss = sum over mask of w * (softplus(z) - labels * z)

    Source: negative sampling, He et al., "Practical Lessons from Predicting Clicks on
    Ads at Facebook", ADKDD 2014, section 6; positives that were first logged as
    negatives, Ktena et al., "Addressing Delayed Feedback for Continuous Training with
    Neural Networks in CTR Prediction", RecSys 2019, section 3 (arXiv:1907.06558).

    Args:
      labels: `[batch]` or `[batch, 1]`, from 0 to 1.
      logits: Like `labels`.
      weights: Like `labels`, optional.
      sample_rate: Share of the negatives that was kept, above 0: one number, or one per
        example, where a positive has the rate of negatives like it.
      sample_bias: Whether every positive is also in the data once as a negative.
      mask: Boolean, like `labels`: which examples count. The others may hold anything,
        NaN included; they get no gradient.
      logit_clip_threshold: Clips the probability in the loss to between this and 1
        minus this; above 0 and below 0.5. Clipped examples get no gradient.
      reduction: "sum", or "mean" for the sum divided by that of the weights.

    Returns:
      A scalar; NaN if an example that counts has a label outside [0, 1] and a weight
      other than 0.

    Raises:
      ValueError: If a shape or an argument is not as above.

    Example:
      >>> float(sigmoid_loss([0.0], [0.0], sample_rate=0.5))  # log(1 + 2)
      1.0986123085021973
    """
    loss, _, _ = _sigmoid(
        labels,
        logits,
        weights,
        sample_rate,
        sample_bias,
        mask,
        logit_clip_threshold,
        reduction,
    )
    return loss


def sigmoid_head(
    labels: Tensor,
    logits: Tensor,
    *,
    weights: Tensor | None = None,
    sample_rate: Tensor | float | None = None,
    sample_bias: bool = False,
    mask: Tensor | None = None,
    logit_clip_threshold: float | None = None,
    predict_before_correction: bool = True,
    reduction: Reduction = "sum",
) -> tuple[Tensor, Tensor]:
    """Returns `sigmoid_loss` and the probabilities `[batch]`.

    Args:
      labels: As in `sigmoid_loss`, like all arguments but the one below.
      logits: See there.
      weights: See there.
      sample_rate: See there.
      sample_bias: See there.
      mask: See there.
      logit_clip_threshold: See there; never applied to the probabilities.
      predict_before_correction: Whether the probabilities are those of the true
        distribution, `sigmoid(logits)`, rather than those of the sampled data, whose
        mean is the mean of its labels. Always use the former in serving.
      reduction: See there.

    Returns:
      `(loss, predictions)`, a scalar and `[batch]`.

    Raises:
      ValueError: As `sigmoid_loss`.
    """
    loss, raw, corrected = _sigmoid(
        labels,
        logits,
        weights,
        sample_rate,
        sample_bias,
        mask,
        logit_clip_threshold,
        reduction,
    )
    return loss, tf.sigmoid(raw if predict_before_correction else corrected)


def softmax_loss(
    labels: Tensor,
    logits: Tensor,
    *,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "sum",
) -> Tensor:
    """Softmax cross entropy over classes.

        loss = sum over mask of w * -sum_c labels_c * log_softmax(logits)_c

    Args:
      labels: `[batch, classes]` that sum to 1, or class numbers `[batch]`, integer.
      logits: `[batch, classes]`.
      weights: `[batch]` or `[batch, 1]`, optional.
      mask: Boolean `[batch]` or `[batch, 1]`: which examples count. The others may
        hold anything; they get no gradient.
      reduction: "sum", or "mean" for the sum divided by that of the weights.

    Returns:
      A scalar.

    Raises:
      ValueError: If the shapes are not as above.
    """
    logits = tf.cast(tf.convert_to_tensor(logits), tf.float32)
    if logits.shape.rank != 2:
        raise ValueError(
            "`logits` must have shape [batch, classes]. "
            f"Received: logits of shape {logits.shape}."
        )
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 1 and labels.dtype.is_integer:
        labels = tf.one_hot(labels, tf.shape(logits)[1])
    labels = tf.cast(labels, tf.float32)
    reductions.check_same_shape("labels", labels, "logits", logits)
    weights = reductions.weights_like(logits[:, 0], weights)
    if mask is not None:
        counts = _checked_mask(mask, weights)
        weights = tf.where(counts, weights, 0.0)
        labels = tf.where(counts[:, tf.newaxis], labels, 0.0)
        logits = tf.where(counts[:, tf.newaxis], logits, 0.0)
    losses = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    return reductions.reduce(losses, weights, reduction)


def softmax_head(
    labels: Tensor,
    logits: Tensor,
    *,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: Reduction = "sum",
) -> tuple[Tensor, Tensor]:
    """Returns `softmax_loss` and the most probable class of each example.

    Args:
      labels: As in `softmax_loss`, like all arguments.
      logits: See there.
      weights: See there.
      mask: See there.
      reduction: See there.

    Returns:
      `(loss, predictions)`, a scalar and int64 `[batch]`; the first of equal classes.

    Raises:
      ValueError: As `softmax_loss`.
    """
    loss = softmax_loss(labels, logits, weights=weights, mask=mask, reduction=reduction)
    return loss, tf.argmax(logits, axis=1)


def _sigmoid(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None,
    sample_rate: Tensor | float | None,
    sample_bias: bool,
    mask: Tensor | None,
    logit_clip_threshold: float | None,
    reduction: Reduction,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the loss, and the logits before and after correction."""
    labels = reductions.column("labels", labels)
    logits = reductions.column("logits", logits)
    reductions.check_same_shape("labels", labels, "logits", logits)
    weights = reductions.weights_like(logits, weights)
    corrected = _corrected(logits, sample_rate, sample_bias)
    z = corrected
    if mask is not None:
        counts = _checked_mask(mask, weights)
        weights = tf.where(counts, weights, 0.0)
        labels = tf.where(counts, labels, 0.0)
        # Before the correction: a NaN would make its gradient NaN.
        z = _corrected(tf.where(counts, logits, 0.0), sample_rate, sample_bias)
        z = tf.where(counts, z, 0.0)
    if logit_clip_threshold is not None:
        if not 0.0 < logit_clip_threshold < 0.5:
            raise ValueError(
                "`logit_clip_threshold` must be above 0 and below 0.5. "
                f"Received: logit_clip_threshold={logit_clip_threshold}."
            )
        bound = math.log((1.0 - logit_clip_threshold) / logit_clip_threshold)
        z = tf.clip_by_value(z, -bound, bound)
    losses = reductions.sigmoid_cross_entropy(labels, z, weights)
    return reductions.reduce(losses, weights, reduction), logits, corrected


def _corrected(
    logits: Tensor, sample_rate: Tensor | float | None, sample_bias: bool
) -> Tensor:
    """Moves true logits to the distribution of the sampled data."""
    if sample_bias:
        # Odds o become o / (1 + o): each positive adds a negative.
        logits = tf.math.log_sigmoid(logits)
    if sample_rate is None:
        return logits
    if isinstance(sample_rate, int | float):
        if not sample_rate > 0:
            raise ValueError(
                f"`sample_rate` must be above 0. Received: sample_rate={sample_rate}."
            )
        return logits - math.log(sample_rate)
    rates = tf.cast(tf.convert_to_tensor(sample_rate), tf.float32)
    if rates.shape.rank != 0:
        rates = reductions.column("sample_rate", rates)
        reductions.check_same_shape("sample_rate", rates, "logits", logits)
    return logits - tf.math.log(rates)


def _checked_mask(mask: Tensor, weights: Tensor) -> Tensor:
    mask = reductions.column("mask", mask)
    reductions.check_same_shape("mask", mask, "logits", weights)
    return mask > 0.0
