"""Exact area under the ROC curve, over all examples and per user."""

import numpy as np

from monolith_tf.metrics.base import Array
from monolith_tf.metrics.base import Batch
from monolith_tf.metrics.base import RowMetric
from monolith_tf.metrics.base import check_binary


class AUC(RowMetric):
    """Exact area under the ROC curve.

    The probability that a random positive scores above a random negative, both drawn in
    proportion to their weights; ties count one half:

        result = sum_ij w_i w_j ([p_i > p_j] + [p_i = p_j] / 2) / sum_ij w_i w_j
                 over positives i and negatives j

    Computed by sorting: 10 million examples take a second, or three with weights.
    Predictions are compared as float32. Labels 0 or 1. NaN without positives, without
    negatives, or if a prediction is NaN.

    Source: Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve",
    Radiology 143, 1982.
    """

    higher_is_better = True

    def _add(self, batch: Batch) -> None:
        check_binary("AUC", batch.labels)
        super()._add(batch)

    def _value(self, rows: Batch) -> float:
        if np.isnan(rows.predictions).any():
            return np.nan
        positive = rows.labels == 1
        if rows.weights is None:
            return _unweighted(rows.predictions[positive], rows.predictions[~positive])
        return _weighted(rows.predictions, positive, rows.weights)


class GAUC(RowMetric):
    """Mean of the users' exact AUCs, weighted by their impressions.

        result = sum_u n_u AUC_u / sum_u n_u,   n_u = the sum of user u's weights

    over the users with at least one positive and one negative; the others have no
    AUC and are left out. `keys` are the users. NaN if no user is left, or if a
    prediction of a user who counts is NaN.

    Source: Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD
    2018, section on metrics (arXiv:1706.06978).
    """

    higher_is_better = True
    needs_keys = True

    def _add(self, batch: Batch) -> None:
        check_binary("GAUC", batch.labels)
        super()._add(batch)

    def _value(self, rows: Batch) -> float:
        _, users = np.unique(rows.keys, return_inverse=True)
        order = np.lexsort((rows.predictions, users))
        users = users[order]
        predictions = rows.predictions[order]
        weights = np.ones(users.size)
        if rows.weights is not None:
            weights = rows.weights[order].astype(np.float64)
        positive = weights * (rows.labels[order] == 1)
        negative = weights - positive

        # A run is a stretch of tied predictions of one user.
        new_run = np.ones(users.size, bool)
        new_run[1:] = (users[1:] != users[:-1]) | (predictions[1:] != predictions[:-1])
        runs = np.flatnonzero(new_run)
        owner = users[runs]
        run_positive = np.add.reduceat(positive, runs)
        run_negative = np.add.reduceat(negative, runs)
        before = np.cumsum(run_negative) - run_negative  # over all earlier runs
        first = np.searchsorted(owner, np.arange(owner[-1] + 1))  # each user's first
        below = before - before[first][owner]
        wins = np.bincount(owner, run_positive * (below + run_negative / 2))

        user_positive = np.bincount(users, positive)
        user_negative = np.bincount(users, negative)
        counted = (user_positive > 0) & (user_negative > 0)
        if not counted.any():
            return np.nan
        if np.isnan(predictions[counted[users]]).any():
            return np.nan
        user_auc = wins[counted] / (user_positive * user_negative)[counted]
        impressions = (user_positive + user_negative)[counted]
        return user_auc @ impressions / impressions.sum()


def _unweighted(positives: Array, negatives: Array) -> float:
    """Counts pairs in integers, so only the division rounds."""
    if not positives.size or not negatives.size:
        return float("nan")
    positives = np.sort(positives)
    negatives = np.sort(negatives)
    below = np.searchsorted(negatives, positives, "left").sum(dtype=np.int64)
    not_above = np.searchsorted(negatives, positives, "right").sum(dtype=np.int64)
    pairs = positives.size * negatives.size
    return (int(below) + int(not_above)) / (2 * pairs)


def _weighted(predictions: Array, positive: Array, weights: Array) -> float:
    order = np.argsort(predictions)
    predictions = predictions[order]
    sorted_weights = weights[order].astype(np.float64)
    positive = positive[order]
    positives, negatives = predictions[positive], predictions[~positive]
    positive_weights = sorted_weights[positive]
    reached = np.concatenate([[0.0], np.cumsum(sorted_weights[~positive])])
    total = positive_weights.sum() * reached[-1]
    if not total > 0:
        return float("nan")
    below = reached[np.searchsorted(negatives, positives, "left")]
    not_above = reached[np.searchsorted(negatives, positives, "right")]
    return float(positive_weights @ (below + not_above) / (2 * total))
