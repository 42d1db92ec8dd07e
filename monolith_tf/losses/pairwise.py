"""Ranking losses over pairs of examples of one list."""

from collections.abc import Callable
from typing import Literal

import tensorflow as tf

from monolith_tf.losses import lists as lists_lib
from monolith_tf.losses import reduction
from monolith_tf.types import Tensor


def pairwise_logistic_loss(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
    *,
    lambda_weight: Literal["ndcg"] | None = None,
) -> Tensor:
    """Weighted mean over pairs of `log(1 + exp(-(logits_i - logits_j)))`.

    A pair is two examples i, j of one list with `labels_i > labels_j`; its weight is
    that of i. With `lambda_weight`, its loss is also multiplied by the change of the
    list's NDCG if the two swapped ranks:

        |gain_i - gain_j| * |1 / log2(1 + rank_i) - 1 / log2(1 + rank_j)|

    where ranks come from the current logits, gains are `2^label - 1` over the best
    possible DCG, and no gradient flows through either.

    Source: Burges et al., "Learning to Rank Using Gradient Descent" (RankNet), ICML
    2005; lambda weights, Wang et al., "The LambdaLoss Framework for Ranking Metric
    Optimization", CIKM 2018.

    Args:
      labels: `[batch]` or `[batch, 1]` with `groups`, or `[lists, size]`: relevance
        grades. Examples with a negative label are left out; use it for padding.
      logits: Like `labels`.
      weights: Like `labels`, optional.
      groups: `[batch]` keys, integers or strings: the query or user of each example.
        Without them `[batch]` is one list. Takes `[batch, batch]` memory.
      lambda_weight: "ndcg" or None.

    Returns:
      A scalar; 0 without a pair.

    Raises:
      ValueError: If a shape or an argument is not as above.
    """
    return _pairwise(
        lambda margin: tf.nn.softplus(-margin),
        labels,
        logits,
        weights,
        groups,
        lambda_weight,
    )


def pairwise_hinge_loss(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
    *,
    lambda_weight: Literal["ndcg"] | None = None,
) -> Tensor:
    """Weighted mean over pairs of `max(0, 1 - (logits_i - logits_j))`.

    See `pairwise_logistic_loss` for the pairs and the arguments.

    Source: Herbrich et al., "Large Margin Rank Boundaries for Ordinal Regression",
    Advances in Large Margin Classifiers, 2000.

    Args:
      labels: See `pairwise_logistic_loss`.
      logits: See there.
      weights: See there.
      groups: See there.
      lambda_weight: See there.

    Returns:
      A scalar; 0 without a pair.

    Raises:
      ValueError: As `pairwise_logistic_loss`.
    """
    return _pairwise(
        lambda margin: tf.nn.relu(1.0 - margin),
        labels,
        logits,
        weights,
        groups,
        lambda_weight,
    )


def pairwise_soft_zero_one_loss(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
    *,
    lambda_weight: Literal["ndcg"] | None = None,
) -> Tensor:
    """Weighted mean over pairs of `sigmoid(-(logits_i - logits_j))`.

    A smooth count of wrongly ordered pairs, from 0 to 1; unlike the other two, it is
    robust to outliers. See `pairwise_logistic_loss` for the pairs and the arguments.

    Source: Pasumarthi et al., "TF-Ranking", KDD 2019 (arXiv:1812.00073).

    Args:
      labels: See `pairwise_logistic_loss`.
      logits: See there.
      weights: See there.
      groups: See there.
      lambda_weight: See there.

    Returns:
      A scalar; 0 without a pair.

    Raises:
      ValueError: As `pairwise_logistic_loss`.
    """
    return _pairwise(
        lambda margin: tf.sigmoid(-margin),
        labels,
        logits,
        weights,
        groups,
        lambda_weight,
    )


def _pairwise(
    loss_fn: Callable[[Tensor], Tensor],
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None,
    groups: Tensor | None,
    lambda_weight: str | None,
) -> Tensor:
    if lambda_weight not in (None, "ndcg"):
        raise ValueError(
            "`lambda_weight` must be 'ndcg' or None. "
            f"Received: lambda_weight={lambda_weight!r}."
        )
    lists = lists_lib.as_lists(labels, logits, weights, groups)
    pairs = lists.same & (_differences(lists.labels) > 0.0)  # [rows, i, j]
    # Without a pair, the margin is 0 and gets no gradient.
    losses = loss_fn(tf.where(pairs, _differences(lists.logits), 0.0))
    if lambda_weight == "ndcg":
        losses *= tf.stop_gradient(_swap_effects(lists))
    pair_weights = tf.where(pairs, lists.weights[:, :, tf.newaxis], 0.0)
    return reduction.reduce(losses, pair_weights, "mean")


def _differences(values: Tensor) -> Tensor:
    return values[:, :, tf.newaxis] - values[:, tf.newaxis, :]


def _swap_effects(lists: lists_lib.Lists) -> Tensor:
    """Returns the change of a list's NDCG if i and j swap ranks; [rows, i, j]."""
    discounts = lists_lib.discounts(lists_lib.positions(lists, lists.logits))
    return tf.abs(_differences(lists_lib.gains(lists)) * _differences(discounts))
