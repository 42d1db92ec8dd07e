"""Lists of examples to rank, in either of two shapes, and means over lists."""

from typing import NamedTuple

import tensorflow as tf

from monolith_tf.losses import reduction
from monolith_tf.types import Tensor


class Lists(NamedTuple):
    """Examples, and which of them share a list.

    `[rows, size]` has one list per row or, with `groups`, all lists in one row.
    Left-out examples have label, logit and weight 0, and `same` False.
    """

    labels: Tensor  # [rows, size]
    logits: Tensor  # [rows, size]
    weights: Tensor  # [rows, size]
    same: Tensor  # [rows, size, size], bool; also with itself


def as_lists(
    labels: Tensor, logits: Tensor, weights: Tensor | None, groups: Tensor | None
) -> Lists:
    """Checks and arranges the arguments that all losses over lists share.

    Args:
      labels: `[batch]`, `[batch, 1]` or `[lists, size]`, `size` above 1; negative
        means left out.
      logits: Like `labels`.
      weights: Like `labels`, optional.
      groups: `[batch]` keys that differ between lists; not with `[lists, size]`.
    """
    logits = tf.cast(tf.convert_to_tensor(logits), tf.float32)
    labels = tf.cast(tf.convert_to_tensor(labels), tf.float32)
    weights = tf.ones_like(logits) if weights is None else tf.cast(weights, tf.float32)
    # A column is a batch, as everywhere, and not lists of one.
    is_column = logits.shape.rank == 2 and logits.shape[1] == 1
    flat = groups is not None or logits.shape.rank == 1 or is_column
    if flat:
        labels = reduction.column("labels", labels)
        logits = reduction.column("logits", logits)
        weights = reduction.column("weights", weights)
    elif logits.shape.rank != 2:
        raise ValueError(
            "`logits` must have shape [batch] or [lists, size]. "
            f"Received: logits of shape {logits.shape}."
        )
    reduction.check_same_shape("labels", labels, "logits", logits)
    reduction.check_same_shape("weights", weights, "logits", logits)
    if not flat and logits.shape[1] is None:
        # Whether it is a column is known only at run time.
        num_rows, size = tf.unstack(tf.shape(logits))
        shape = tf.where(tf.equal(size, 1), [1, num_rows], [num_rows, size])
        labels, logits, weights = (
            tf.ensure_shape(tf.reshape(t, shape), [None, None])
            for t in (labels, logits, weights)
        )
    related = tf.constant(True)
    if groups is not None:
        groups = tf.convert_to_tensor(groups)
        if groups.shape.rank == 2:
            groups = tf.squeeze(groups, axis=1)
        reduction.check_same_shape("groups", groups, "logits", logits)
        related = tf.equal(groups[:, tf.newaxis], groups)
    if flat:
        labels, logits, weights = (t[tf.newaxis] for t in (labels, logits, weights))
    valid = labels >= 0.0
    return Lists(
        labels=tf.where(valid, labels, 0.0),
        logits=tf.where(valid, logits, 0.0),
        weights=tf.where(valid, weights, 0.0),
        same=related & valid[:, :, tf.newaxis] & valid[:, tf.newaxis, :],
    )


def list_sums(lists: Lists, values: Tensor) -> Tensor:
    """Returns for each example the sum of `values` over its list; `[rows, size]`."""
    return tf.linalg.matvec(tf.cast(lists.same, tf.float32), values)


def mean_over_lists(lists: Lists, terms: Tensor, counted: Tensor) -> Tensor:
    """Returns the weighted mean over lists of the sum of a list's `terms`.

    The weight of a list is the mean of its examples' weights.

    Args:
      lists: The lists.
      terms: `[rows, size]`, what each example adds to its list's loss.
      counted: `[rows, size]`, bool, equal within a list: whether the list counts.
    """
    sizes = list_sums(lists, tf.ones_like(terms))
    list_weights = tf.math.divide_no_nan(list_sums(lists, lists.weights), sizes)
    counted &= tf.linalg.diag_part(lists.same)
    shares = tf.where(counted, list_weights, 0.0)
    total = tf.reduce_sum(tf.where(counted, terms, 0.0) * shares)
    return tf.math.divide_no_nan(
        total, tf.reduce_sum(tf.math.divide_no_nan(shares, sizes))
    )


def positions(lists: Lists, values: Tensor) -> Tensor:
    """Returns ranks within the list by decreasing `values`, from 1; `[rows, size]`.

    Equal values rank in their order.
    """
    mine, theirs = values[:, :, tf.newaxis], values[:, tf.newaxis, :]
    index = tf.range(tf.shape(values)[1])
    earlier = (theirs == mine) & (index < index[:, tf.newaxis])
    ahead = lists.same & ((theirs > mine) | earlier)
    return 1.0 + tf.reduce_sum(tf.cast(ahead, tf.float32), axis=2)


def gains(lists: Lists) -> Tensor:
    """Returns `2^label - 1` divided by its list's best possible DCG; 0 if that is 0."""
    raw = tf.math.expm1(lists.labels * 0.6931471805599453)
    best = list_sums(lists, raw * discounts(positions(lists, lists.labels)))
    return tf.math.divide_no_nan(raw, best)


def discounts(ranks: Tensor) -> Tensor:
    """Returns `1 / log2(1 + rank)`."""
    return 0.6931471805599453 / tf.math.log1p(ranks)
