"""Metrics by the names that configs use."""

import difflib
import inspect
import re
from collections.abc import Callable
from typing import NamedTuple

from monolith_tf import imports
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
"""All metric names; the 10 in `hr@10` and similar may be any integer from 1."""


class _Entry(NamedTuple):
    kind: type[Metric]
    make: Callable[[], Metric]


def create(name: str) -> Metric:
    """Returns a new metric.

    Args:
      name: One of `NAMES`, or for example `ndcg@5`; or your own class, as
        `module:Name`, also from the current directory. It is created without arguments
        and must have the methods `update` and `result` of `Metric`.

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
    """Returns whether a higher value of the metric is better.

    Your own class sets its attribute `higher_is_better`.

    Raises:
      ValueError: If there is no such metric, or if neither end is best, as for
        `calibration`, whose best value is 1.
    """
    higher: bool | None = getattr(_entry(name).kind, "higher_is_better", None)
    if higher is None and ":" in name:
        raise ValueError(
            "The metric must be best when highest or lowest. "
            f"Received: name={name!r}, which does not define this. Set "
            "`higher_is_better` of the class to True or False."
        )
    if higher is None:
        raise ValueError(
            "The metric must be best when highest or lowest. "
            f"Received: name={name!r}, which is best at 1. "
            "`normalized_entropy` rewards calibration and is best when lowest."
        )
    return higher


def needs_keys(name: str) -> bool:
    """Returns whether the metric's `update` requires `keys`.

    Your own class sets its attribute `needs_keys`; without it, this is False.

    Raises:
      ValueError: If there is no such metric.
    """
    return bool(getattr(_entry(name).kind, "needs_keys", False))


def _entry(name: str) -> _Entry:
    if ":" in name:
        kind = _own(name)
        return _Entry(kind, kind)
    if name in _PLAIN:
        return _Entry(_PLAIN[name], _PLAIN[name])
    match = re.fullmatch(r"(\w+)@([1-9]\d*)", name)
    if match and match[1] in _AT_K:
        kind, k = _AT_K[match[1]], int(match[2])
        return _Entry(kind, lambda: kind(k))
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    raise ValueError(
        f"A metric must be one of {', '.join(NAMES)}, where 10 may be any integer from "
        f"1, or your own, as `module:Name`. Received: name={name!r}.{hint}"
    )


def _own(name: str) -> type[Metric]:
    """Imports a user's metric.

    Raises:
      ValueError: If there is no such class, or it cannot be used as a metric.
    """
    found = imports.load_name(name, "metrics")
    if not isinstance(found, type):
        raise ValueError(f"`metrics`: {name!r} is not a class. Received: {found!r}.")
    lacking = [
        method
        for method in ("update", "result")
        if not callable(getattr(found, method, None))
    ]
    abstract = sorted(getattr(found, "__abstractmethods__", ()))
    if lacking or abstract:
        raise ValueError(
            f"`metrics`: the class {name!r} has no method "
            f"`{(lacking or abstract)[0]}`. A metric has "
            "`update(predictions, labels, weights=None, keys=None)` and `result()`, as "
            "in `monolith_tf.metrics.Metric`."
        )
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        raise ValueError(
            f"`metrics`: the class {name!r} must be created without arguments, but its "
            f"`__init__` requires some: {error}. Give them defaults."
        ) from None
    return found
