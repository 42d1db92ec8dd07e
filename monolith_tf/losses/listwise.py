"""Ranking losses over whole lists."""

import tensorflow as tf

from monolith_tf.losses import lists as lists_lib
from monolith_tf.types import Tensor


def list_softmax_loss(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Mean over lists of the cross entropy between labels and softmax(logits).

        list loss = -sum_i labels_i / sum_j labels_j * log_softmax(logits)_i

    over the lists with a positive label. The weight of a list is the mean of its
    examples' weights.

    Source: Bruch et al., "An Analysis of the Softmax Cross Entropy Loss for
    Learning-to-Rank with Binary Relevance", ICTIR 2019; after Cao et al., "Learning
    to Rank: From Pairwise Approach to Listwise Approach", ICML 2007.

    Args:
      labels: `[batch]` or `[batch, 1]` with `groups`, or `[lists, size]`: relevance
        grades. Examples with a negative label are left out; use it for padding.
      logits: Like `labels`.
      weights: Like `labels`, optional.
      groups: `[batch]` keys, integers or strings: the query or user of each example.
        Without them `[batch]` is one list. Takes `[batch, batch]` memory.

    Returns:
      A scalar; 0 if no list counts.

    Raises:
      ValueError: If the shapes are not as above.
    """
    lists = lists_lib.as_lists(labels, logits, weights, groups)
    log_probabilities = lists.logits - _log_sums(lists.logits, lists.same)
    sums = lists_lib.list_sums(lists, lists.labels)
    targets = tf.math.divide_no_nan(lists.labels, sums)
    return lists_lib.mean_over_lists(lists, -targets * log_probabilities, sums > 0.0)


def list_mle_loss(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
) -> Tensor:
    """Negative log-likelihood of the labels' order under the Plackett-Luce model.

        list loss = sum_i (logsumexp of logits_j with labels_j <= labels_i) - logits_i

    Ties are handled by Breslow's rule, so the loss does not depend on the order of the
    rows. Mean over the lists whose labels are not all equal. The weight of a list is
    the mean of its examples' weights.

    Source: Xia et al., "Listwise Approach to Learning to Rank: Theory and Algorithm",
    ICML 2008; ties, Breslow, "Covariance Analysis of Censored Survival Data",
    Biometrics 30, 1974.

    Args:
      labels: See `list_softmax_loss`.
      logits: See there.
      weights: See there.
      groups: See there.

    Returns:
      A scalar; 0 if no list counts.

    Raises:
      ValueError: If the shapes are not as in `list_softmax_loss`.
    """
    lists = lists_lib.as_lists(labels, logits, weights, groups)
    mine, theirs = lists.labels[:, :, tf.newaxis], lists.labels[:, tf.newaxis, :]
    remaining = lists.same & (theirs <= mine)
    terms = _log_sums(lists.logits, remaining) - lists.logits
    ordered = tf.reduce_any(lists.same & (theirs != mine), axis=2)
    return lists_lib.mean_over_lists(lists, terms, ordered)


def approx_ndcg_loss(
    labels: Tensor,
    logits: Tensor,
    weights: Tensor | None = None,
    groups: Tensor | None = None,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Mean over lists of 1 - NDCG with smooth ranks.

        rank_i = 1 + sum_{j != i} sigmoid((logits_j - logits_i) / temperature)
        list loss = 1 - sum_i (2^labels_i - 1) / log2(1 + rank_i) / best DCG

    over the lists with a positive label. The weight of a list is the mean of its
    examples' weights.

    Source: Qin et al., "A General Approximation Framework for Direct Optimization of
    Information Retrieval Measures", Information Retrieval 13, 2010; Bruch et al.,
    "Revisiting Approximate Metric Optimization in the Age of Deep Neural Networks",
    SIGIR 2019.

    Args:
      labels: See `list_softmax_loss`.
      logits: See there.
      weights: See there.
      groups: See there.
      temperature: Above 0; smaller ranks more sharply, with smaller gradients.

    Returns:
      A scalar from 0 to 1; 0 if no list counts.

    Raises:
      ValueError: If `temperature <= 0`, or if the shapes are not as in
        `list_softmax_loss`.
    """
    if temperature <= 0:
        raise ValueError(
            f"`temperature` must be above 0. Received: temperature={temperature}."
        )
    lists = lists_lib.as_lists(labels, logits, weights, groups)
    ahead = lists.logits[:, tf.newaxis, :] - lists.logits[:, :, tf.newaxis]
    ahead = tf.where(lists.same, tf.sigmoid(ahead / temperature), 0.0)
    ranks = 0.5 + tf.reduce_sum(ahead, axis=2)  # an example adds 1/2 to its own rank
    gains = lists_lib.gains(lists)
    sizes = lists_lib.list_sums(lists, tf.ones_like(gains))
    terms = tf.math.divide_no_nan(1.0, sizes) - gains * lists_lib.discounts(ranks)
    relevant = lists_lib.list_sums(lists, lists.labels) > 0.0
    return lists_lib.mean_over_lists(lists, terms, relevant)


def _log_sums(logits: Tensor, members: Tensor) -> Tensor:
    """Returns the log of the sum of exp over each row's members; `[rows, size]`."""
    theirs = tf.where(members, logits[:, tf.newaxis, :], logits.dtype.min)
    return tf.reduce_logsumexp(theirs, axis=2)
