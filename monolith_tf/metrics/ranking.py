"""Metrics of ranked lists, averaged over users or queries."""

import abc
from typing import NamedTuple

import numpy as np

from monolith_tf.metrics.base import Array
from monolith_tf.metrics.base import Batch
from monolith_tf.metrics.base import RowMetric
from monolith_tf.types import JsonDict


class _Lists(NamedTuple):
    """Rows sorted list by list, best prediction first."""

    owner: Array  # [rows], the list of each row, increasing from 0
    ranks: Array  # [rows], from 0
    labels: Array  # [rows]
    weights: Array  # [lists]


class RankingMetric(RowMetric):
    """The mean over lists of a measure of their ranking.

    The rows that share a key, the user or the query, form a list, also across batches.
    Labels are relevance grades, not negative; above 0 is relevant. Lists without a
    relevant row are left out. The weight of a list is the mean of its rows' weights.

    Ties count against the model: of rows with the same prediction the less relevant
    ranks first, so a model with equal scores for all gets the worst value. NaN
    predictions rank last. NaN if no list has a relevant row.
    """

    higher_is_better = True
    needs_keys = True

    def _add(self, batch: Batch) -> None:
        if not np.all(batch.labels >= 0):
            raise ValueError(
                f"{type(self).__name__} needs `labels` that are not negative. "
                f"Received: labels={batch.labels}."
            )
        super()._add(batch)

    def _value(self, rows: Batch) -> float:
        _, owner = np.unique(rows.keys, return_inverse=True)
        lists = _ranked(owner, rows)
        values = self._list_values(lists)
        relevant = np.bincount(lists.owner, lists.labels > 0)
        weights = np.where(relevant > 0, lists.weights, 0.0)
        total = weights.sum()
        return weights @ values / total if total > 0 else np.nan

    @abc.abstractmethod
    def _list_values(self, lists: _Lists) -> Array:
        """Returns each list's value; any finite one for lists without relevant rows."""


class TopKMetric(RankingMetric):
    """A ranking metric over the first k rows of a list.

    Args:
      k: Rows that count, at least 1; None for all.

    Raises:
      ValueError: If `k < 1`.
    """

    def __init__(self, k: int | None = 10) -> None:
        if k is not None and k < 1:
            raise ValueError(f"`k` must be at least 1 or None. Received: k={k}.")
        super().__init__()
        self.k = k

    def _settings(self) -> JsonDict:
        return {"k": self.k}

    def _in_top(self, ranks: Array) -> Array:
        return np.ones_like(ranks, bool) if self.k is None else ranks < self.k


class NDCG(TopKMetric):
    """Normalized discounted cumulative gain of the first k.

        dcg = sum over ranks r < k, from 0, of (2^label_r - 1) / log2(r + 2)
        list value = dcg / (dcg of the best possible order)

    See `RankingMetric` for ties, weights and lists without relevant rows.

    Source: Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR
    Techniques", TOIS 20(4), 2002; gains of Burges et al., "Learning to Rank Using
    Gradient Descent", ICML 2005.
    """

    def _list_values(self, lists: _Lists) -> Array:
        ideal_order = np.lexsort((-lists.labels, lists.owner))
        gained = self._dcg(lists, lists.labels)
        possible = self._dcg(lists, lists.labels[ideal_order])
        return gained / np.where(possible > 0, possible, 1.0)

    def _dcg(self, lists: _Lists, labels: Array) -> Array:
        gains = np.expm1(np.log(2.0) * labels) / np.log2(lists.ranks + 2.0)
        return np.bincount(lists.owner, gains * self._in_top(lists.ranks))


class HitRate(TopKMetric):
    """Share of lists with at least one relevant row among the first k.

    With one relevant row per list, as in leave-one-out evaluation, it equals `Recall`.
    See `RankingMetric` for ties, weights and lists without relevant rows.
    """

    def _list_values(self, lists: _Lists) -> Array:
        hits = (lists.labels > 0) & self._in_top(lists.ranks)
        return np.minimum(np.bincount(lists.owner, hits), 1.0)


class Recall(TopKMetric):
    """Share of a list's relevant rows that are among its first k.

    See `RankingMetric` for ties, weights and lists without relevant rows.
    """

    def _list_values(self, lists: _Lists) -> Array:
        relevant = lists.labels > 0
        hits = np.bincount(lists.owner, relevant & self._in_top(lists.ranks))
        return hits / np.maximum(np.bincount(lists.owner, relevant), 1.0)


class MRR(RankingMetric):
    """Mean of 1 / (rank of the first relevant row, from 1).

    See `RankingMetric` for ties, weights and lists without relevant rows.

    Source: Voorhees, "The TREC-8 Question Answering Track Report", TREC 1999.
    """

    def _list_values(self, lists: _Lists) -> Array:
        values = np.zeros(lists.weights.size)
        reciprocal = np.where(lists.labels > 0, 1.0 / (lists.ranks + 1.0), 0.0)
        np.maximum.at(values, lists.owner, reciprocal)
        return values


def _ranked(owner: Array, rows: Batch) -> _Lists:
    """Ranks each list's rows: higher prediction first, then lower label first."""
    order = np.lexsort((rows.labels, -rows.predictions, owner))  # NaN sorts last
    owner = owner[order]
    sizes = np.bincount(owner)
    starts = np.cumsum(sizes) - sizes
    weights = np.ones(sizes.size)
    if rows.weights is not None:
        weights = np.bincount(owner, rows.weights[order]) / sizes
    return _Lists(
        owner=owner,
        ranks=np.arange(owner.size) - starts[owner],
        labels=rows.labels[order].astype(np.float64),
        weights=weights,
    )
