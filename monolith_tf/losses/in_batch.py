"""Losses that compare the examples of one batch with each other."""

import tensorflow as tf

from monolith_tf.losses import reduction as reductions
from monolith_tf.losses.reduction import Reduction
from monolith_tf.types import Tensor


def batch_softmax_loss(
    queries: Tensor,
    items: Tensor,
    item_intervals: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    item_ids: Tensor | None = None,
    normalize: bool = True,
    temperature: float = 1.0,
    reduction: Reduction = "sum",
) -> Tensor:
    """Softmax over the batch's items, corrected for how often they are in a batch.

        s_ij = queries_i . items_j / temperature + log(max(item_intervals_j, 1))
        loss = sum_i w_i * (logsumexp_j(s_ij) - s_ii)

    The probability that an item drawn every `item_intervals_j` steps is in a batch is
    `1 / item_intervals_j`, so a popular item is a negative too often; the logarithm
    corrects this. `ItemInterval` learns the intervals.

    Source: Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item
    Recommendations", RecSys 2019, equations 3 to 6.

    Args:
      queries: `[batch, dim]`.
      items: `[batch, dim]`; query i chose row i, and the other rows are its negatives.
      item_intervals: `[batch]` or `[batch, 1]`, mean steps between two batches with
        the item; below 1 counts as 1. No correction without them.
      weights: `[batch]` or `[batch, 1]`, optional, such as a reward of the choice.
      item_ids: `[batch]`, optional: rows with the id of row i are not its negatives.
      normalize: Whether to scale queries and items to length 1 first.
      temperature: Above 0; smaller is sharper. With `normalize`, 0.05 is usual.
      reduction: "sum", or "mean" for the sum divided by that of the weights.

    Returns:
      A scalar. No gradient flows to `item_intervals`.

    Raises:
      ValueError: If a shape or an argument is not as above.
    """
    if temperature <= 0:
        raise ValueError(
            f"`temperature` must be above 0. Received: temperature={temperature}."
        )
    queries = tf.cast(tf.convert_to_tensor(queries), tf.float32)
    items = tf.cast(tf.convert_to_tensor(items), tf.float32)
    if queries.shape.rank != 2:
        raise ValueError(
            "`queries` must have shape [batch, dim]. "
            f"Received: queries of shape {queries.shape}."
        )
    reductions.check_same_shape("items", items, "queries", queries)
    if normalize:
        queries = tf.math.l2_normalize(queries, axis=1)
        items = tf.math.l2_normalize(items, axis=1)
    scores = tf.matmul(queries, items, transpose_b=True) / temperature  # [batch, batch]
    if item_intervals is not None:
        intervals = reductions.column("item_intervals", item_intervals)
        reductions.check_same_shape("item_intervals", intervals, "items", items[:, 0])
        scores += tf.math.log(tf.maximum(tf.stop_gradient(intervals), 1.0))
    chosen = tf.linalg.diag_part(scores)  # [batch]
    weights = reductions.weights_like(chosen, weights, "items")
    if item_ids is not None:
        ids = tf.convert_to_tensor(item_ids)
        reductions.check_same_shape("item_ids", ids, "items", items[:, 0])
        same = tf.equal(ids[:, tf.newaxis], ids)  # [batch, batch]
        same = tf.linalg.set_diag(same, tf.zeros_like(ids, tf.bool))
        scores = tf.where(same, scores.dtype.min, scores)
    losses = tf.reduce_logsumexp(scores, axis=1) - chosen
    return reductions.reduce(losses, weights, reduction)


def inbatch_auc_loss(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    neg_weight: float = 1.0,
    reduction: Reduction = "sum",
) -> Tensor:
    """Logistic loss on every pair of a positive and a negative of the batch.

        loss = sum over positives i and negatives j of
               w_i * w_j * softplus(logits_j - logits_i)

    a smooth bound on the pairs that the batch ranks wrongly, which is what 1 - AUC
    counts. It is not negative, and to be minimized. It takes `[batch, batch]` memory.

    Source: Gao and Zhou, "On the Consistency of AUC Pairwise Optimization", IJCAI
    2015 (arXiv:1208.0645).

    Args:
      labels: `[batch]` or `[batch, 1]`; above 0 is positive.
      logits: Like `labels`.
      weights: Like `labels`, optional.
      mask: Boolean, like `labels`: which examples count. The others may hold anything,
        NaN included; they get no gradient.
      neg_weight: Factor of the gradient of negatives, above 0 and at most 1; the loss
        does not depend on it. Below 1, positives are pulled up more than negatives are
        pushed down.
      reduction: "sum", or "mean" for the sum divided by that of the pairs' weights.

    Returns:
      A scalar; 0 without a pair.

    Raises:
      ValueError: If a shape or an argument is not as above.
    """
    if not 0.0 < neg_weight <= 1.0:
        raise ValueError(
            "`neg_weight` must be above 0 and at most 1. "
            f"Received: neg_weight={neg_weight}."
        )
    labels = reductions.column("labels", labels)
    logits = reductions.column("logits", logits)
    reductions.check_same_shape("labels", labels, "logits", logits)
    weights = reductions.weights_like(logits, weights)
    if mask is not None:
        counts = reductions.column("mask", mask) > 0.0
        reductions.check_same_shape("mask", counts, "logits", logits)
        weights = tf.where(counts, weights, 0.0)
        logits = tf.where(counts, logits, 0.0)
    positive = tf.where(labels > 0.0, weights, 0.0)
    negative = tf.where(labels > 0.0, 0.0, weights)
    negatives = logits
    if neg_weight != 1.0:
        fixed = tf.stop_gradient(logits)
        negatives = fixed + neg_weight * (logits - fixed)
    losses = tf.nn.softplus(negatives - logits[:, tf.newaxis])  # [positive, negative]
    return reductions.reduce(losses, positive[:, tf.newaxis] * negative, reduction)
