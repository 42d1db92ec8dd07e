"""Metrics that are means over examples: losses, calibration, accuracy."""

from typing import Any

import numpy as np

from monolith_tf.metrics.base import Array
from monolith_tf.metrics.base import SumMetric
from monolith_tf.metrics.base import check_binary
from monolith_tf.metrics.base import check_probabilities
from monolith_tf.types import JsonDict

_CLIP = 1e-7  # below float32's spacing at 1, so a saturated sigmoid costs 16.1, not inf


def _cross_entropy(predictions: Array, labels: Array) -> Array:
    p = np.clip(predictions, _CLIP, 1.0 - _CLIP)
    return -(labels * np.log(p) + (1.0 - labels) * np.log1p(-p))


def _check_soft_labels(name: str, labels: Array) -> None:
    if not np.all((labels >= 0) & (labels <= 1)):
        raise ValueError(
            f"{name} needs `labels` from 0 to 1. Received: labels={labels}."
        )


class LogLoss(SumMetric):
    """Weighted mean binary cross entropy of probabilities, in nats.

        p = clip(predictions, 1e-7, 1 - 1e-7)
        result = sum(w * -(y log p + (1 - y) log(1 - p))) / sum(w)

    Labels from 0 to 1; NaN without examples.
    """

    higher_is_better = False
    num_sums = 2

    def _terms(self, predictions: Array, labels: Array, weights: Array) -> list[Any]:
        check_probabilities("LogLoss", predictions)
        _check_soft_labels("LogLoss", labels)
        losses = _cross_entropy(predictions, labels)
        return [weights @ losses, weights.sum()]

    def _value(self, sums: Array) -> float:
        return sums[0] / sums[1]


class NormalizedEntropy(SumMetric):
    """Log loss divided by that of always predicting the mean label.

        q = sum(w * y) / sum(w)
        result = log_loss / -(q log q + (1 - q) log(1 - q))

    Below 1 is better than predicting the base rate. NaN without examples and if all
    labels are 0 or all are 1.

    Source: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook",
    ADKDD 2014, section on evaluation metrics.
    """

    higher_is_better = False
    num_sums = 3

    def _terms(self, predictions: Array, labels: Array, weights: Array) -> list[Any]:
        check_probabilities("NormalizedEntropy", predictions)
        _check_soft_labels("NormalizedEntropy", labels)
        losses = _cross_entropy(predictions, labels)
        return [weights @ losses, weights @ labels, weights @ (1.0 - labels)]

    def _value(self, sums: Array) -> float:
        loss, positive, negative = sums
        total = positive + negative
        rates = np.array([positive, negative]) / total
        return loss / total / -(rates @ np.log(rates))  # 0 * log 0 gives NaN


class Calibration(SumMetric):
    """Predicted events per observed event: `sum(w * p) / sum(w * y)`.

    1 is best; above 1, the model over-predicts. NaN without examples and if the labels
    sum to 0.

    Source: He et al., ADKDD 2014, section on evaluation metrics.
    """

    num_sums = 2

    def _terms(self, predictions: Array, labels: Array, weights: Array) -> list[Any]:
        return [weights @ predictions, weights @ labels]

    def _value(self, sums: Array) -> float:
        return sums[0] / sums[1] if sums[1] else float("nan")


class MSE(SumMetric):
    """Weighted mean squared error, `sum(w * (p - y)^2) / sum(w)`; NaN when empty."""

    higher_is_better = False
    num_sums = 2

    def _terms(self, predictions: Array, labels: Array, weights: Array) -> list[Any]:
        return [weights @ (predictions - labels) ** 2, weights.sum()]

    def _value(self, sums: Array) -> float:
        return sums[0] / sums[1]


class RMSE(MSE):
    """Square root of the weighted mean squared error; NaN when empty."""

    def _value(self, sums: Array) -> float:
        return np.sqrt(super()._value(sums))


class Accuracy(SumMetric):
    """Weighted share of examples on the right side of `threshold`.

    A prediction equal to `threshold` counts as positive. Labels 0 or 1; NaN when empty
    or if a prediction is NaN.

    Args:
      threshold: Probability from which an example counts as positive.
    """

    higher_is_better = True
    num_sums = 2

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def _terms(self, predictions: Array, labels: Array, weights: Array) -> list[Any]:
        check_binary("Accuracy", labels)
        right = (predictions >= self.threshold) == (labels == 1)
        right = np.where(np.isnan(predictions), np.nan, right)
        return [weights @ right, weights.sum()]

    def _value(self, sums: Array) -> float:
        return sums[0] / sums[1]

    def _settings(self) -> JsonDict:
        return {"threshold": self.threshold}
