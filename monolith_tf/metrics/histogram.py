"""Area under the ROC curve from histograms of fixed size."""

import numpy as np

from monolith_tf.metrics.base import Array
from monolith_tf.metrics.base import Batch
from monolith_tf.metrics.base import Metric
from monolith_tf.metrics.base import check_binary
from monolith_tf.metrics.base import check_probabilities
from monolith_tf.types import JsonDict

# A float32 probability below 1 has a logit below 16.7, so the last bin holds the
# predictions that are exactly 1. Probabilities under 1e-13 share the first.
LOW, HIGH = -30.0, 18.0


class HistogramAUC(Metric):
    """Area under the ROC curve from bins of equal width on the logit scale.

    Two histograms (16 MiB by default) for any number of examples, merged by addition.
    Pairs that share a bin count as ties, so the value differs from the exact one by at
    most

        error_bound() = sum_b pos_b neg_b / (2 sum(pos) sum(neg))

    and in practice by far less, since about half of those pairs are in order. Use it if
    there are too many examples to keep; `AUC` is exact. Predictions are probabilities,
    labels 0 or 1. NaN as for `AUC`.

    Args:
      num_bins: Bins between the logits -30 and 18; other logits go to the end bins.

    Raises:
      ValueError: If `num_bins < 2`.
    """

    higher_is_better = True

    def __init__(self, num_bins: int = 2**20) -> None:
        if num_bins < 2:
            raise ValueError(
                f"`num_bins` must be at least 2. Received: num_bins={num_bins}."
            )
        self.num_bins = num_bins
        self.reset()

    def reset(self) -> None:
        """See `Metric.reset`."""
        self._counts = np.zeros([2, self.num_bins])  # negatives, positives
        self._seen_nan = False

    def result(self) -> float:
        """See `Metric.result`."""
        negatives, positives = self._counts
        total = positives.sum() * negatives.sum()
        if self._seen_nan or not total > 0:
            return float("nan")
        below = np.cumsum(negatives) - negatives / 2
        return float(positives @ below / total)

    def error_bound(self) -> float:
        """Returns the largest possible error of `result`; NaN if `result` is NaN."""
        negatives, positives = self._counts
        total = positives.sum() * negatives.sum()
        if self._seen_nan or not total > 0:
            return float("nan")
        return float(positives @ negatives / (2 * total))

    def _add(self, batch: Batch) -> None:
        check_binary("HistogramAUC", batch.labels)
        check_probabilities("HistogramAUC", batch.predictions)
        if np.isnan(batch.predictions).any():
            self._seen_nan = True
            return
        p = batch.predictions.astype(np.float64)
        positive = batch.labels == 1
        bins = self._bins(p)
        weights = np.ones_like(p) if batch.weights is None else batch.weights
        for side, chosen in enumerate((~positive, positive)):
            np.add.at(self._counts[side], bins[chosen], weights[chosen])

    def _bins(self, p: Array) -> Array:
        with np.errstate(divide="ignore"):
            logits = np.log(p) - np.log1p(-p)
        scaled = (np.clip(logits, LOW, HIGH) - LOW) * (self.num_bins / (HIGH - LOW))
        return np.minimum(scaled.astype(np.int64), self.num_bins - 1)

    def _merge(self, other: "HistogramAUC") -> None:
        self._counts = self._counts + other._counts
        self._seen_nan |= other._seen_nan

    def _settings(self) -> JsonDict:
        return {"num_bins": self.num_bins}
