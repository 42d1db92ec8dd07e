"""Metrics by the names that configs use."""

import difflib
import re
from collections.abc import Callable
from typing import NamedTuple

from monolith_tf.metrics import area
from monolith_tf.metrics import histogram
from monolith_tf.metrics import pointwise
from monolith_tf.metrics import ranking
from monolith_tf.metrics.base import Metric

_PLAIN: dict[str, type[Metric]] = {
    "accuracy": pointwise.Accuracy,
    "auc": area.AUC,
    "calibration": pointwise.Calibration,
    "gauc": area.GAUC,
    "histogram_auc": histogram.HistogramAUC,
    "log_loss": pointwise.LogLoss,
    "mrr": ranking.MRR,
    "mse": pointwise.MSE,
    "normalized_entropy": pointwise.NormalizedEntropy,
    "rmse": pointwise.RMSE,
}
_AT_K: dict[str, type[ranking.TopKMetric]] = {
    "hr": ranking.HitRate,
    "ndcg": ranking.NDCG,
    "recall": ranking.Recall,
}

NAMES = tuple(sorted([*_PLAIN, *(f"{name}@10" for name in _AT_K)]))
"""All metric names; the 10 of `hr@10` and its like may be any whole number from 1."""


class _Entry(NamedTuple):
    kind: type[Metric]
    make: Callable[[], Metric]


def create(name: str) -> Metric:
    """Returns a new metric.

    Args:
      name: One of `NAMES`, or for instance `ndcg@5`.

    Raises:
      ValueError: If there is no such metric.

    Example:
      >>> metric = create("auc")
      >>> metric.update([0.2, 0.7, 0.6], [0, 1, 0])
      >>> metric.result()
      1.0
    """
    return _entry(name).make()


def is_higher_better(name: str) -> bool:
    """Returns whether a rise of the metric is an improvement.

    Raises:
      ValueError: If there is no such metric, or if neither end is best, as for
        `calibration`, whose best value is 1.
    """
    higher = _entry(name).kind.higher_is_better
    if higher is None:
        raise ValueError(
            "A metric that is best when highest or lowest is expected here. "
            f"Received: name={name!r}, which is best at 1. "
            "`normalized_entropy` rewards calibration and is best when lowest."
        )
    return higher


def needs_keys(name: str) -> bool:
    """Returns whether the metric's `update` must be given `keys`.

    Raises:
      ValueError: If there is no such metric.
    """
    return _entry(name).kind.needs_keys


def _entry(name: str) -> _Entry:
    if name in _PLAIN:
        return _Entry(_PLAIN[name], _PLAIN[name])
    match = re.fullmatch(r"(\w+)@([1-9]\d*)", name)
    if match and match[1] in _AT_K:
        kind, k = _AT_K[match[1]], int(match[2])
        return _Entry(kind, lambda: kind(k))
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    raise ValueError(
        f"A metric is one of {', '.join(NAMES)}; any whole number from 1 can stand "
        f"for 10. Received: name={name!r}.{hint}"
    )
