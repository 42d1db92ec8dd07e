"""Decides by a model's predictions for golden rows whether an update is refused."""

import math
import threading
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from monolith_tf.export.publish_spec import GuardSpec
from monolith_tf.serving.golden import GoldenRows

_TINY = 1e-7
_ALWAYS_ALLOWED = 0.01  # Nats: chance, where the served model knows the rows well.


class RefusedError(ValueError):
    """An update that the guard stopped; the message says why."""


class Score(NamedTuple):
    """How well a head's predictions fit the labels.

    Attributes:
      log_loss: Mean log loss, in nats.
      calibration: Mean prediction over mean label, 1 at best; NaN without positives.
    """

    log_loss: float
    calibration: float

    def is_calibrated_worse_than(self, other: "Score") -> bool:
        """Returns whether the calibration is further from 1, as a ratio."""
        return not abs(math.log(self.calibration)) <= abs(math.log(other.calibration))


class Guard:
    """Compares the predictions of an update with those of the served model.

    The first model that is asked for some golden rows is the measure for all updates
    until there are other rows, so that many small changes for the worse do not add up.

    Args:
      spec: The limits.
      rows: The golden rows; None passes all that is finite.
    """

    def __init__(self, spec: GuardSpec, rows: GoldenRows | None) -> None:
        self._spec = spec
        self._lock = threading.Lock()
        self._served: dict[str, Score] | None = None
        self.rows = rows

    def replace(self, rows: GoldenRows) -> None:
        """Takes other rows; the next model that is served is their measure."""
        with self._lock:
            self.rows, self._served = rows, None

    @property
    def has_measure(self) -> bool:
        """Whether the served model was asked."""
        return self._served is not None

    def measure(self, predictions: Mapping[str, np.ndarray]) -> None:
        """Takes the served model's predictions for the golden rows as the measure."""
        with self._lock:
            if self.rows is not None and self._served is None:
                self._served = scores(self.rows.labels, predictions)

    def check(self, predictions: Mapping[str, np.ndarray]) -> None:
        """Raises RefusedError if the predictions of an update are beyond a limit.

        Args:
          predictions: Output -> predictions for the golden rows, `[rows, ...]`.
        """
        for name, values in predictions.items():
            is_number = np.issubdtype(values.dtype, np.floating)
            if is_number and not np.isfinite(values).all():
                row = int(np.nonzero(~np.isfinite(values))[0][0])
                raise RefusedError(
                    f"the prediction of `{name}` for golden row {row} is not finite"
                )
        with self._lock:
            rows, served = self.rows, self._served
        if rows is None or served is None:
            return
        least, most = self._spec.calibration
        for head, now in scores(rows.labels, predictions).items():
            before = served.get(head)
            if before is None:
                continue
            limit = before.log_loss * (1.0 + self._spec.log_loss_rise) + _ALWAYS_ALLOWED
            if not now.log_loss <= limit:
                raise RefusedError(
                    f"the log loss of `{head}` on {rows.num_rows} golden rows rises "
                    f"from {before.log_loss:.5f} to {now.log_loss:.5f}; `log_loss_rise`"
                    f" allows {limit:.5f}"
                )
            # A model that learns a rare label leaves its first predictions far behind.
            is_beyond = now.calibration < least or now.calibration > most
            if is_beyond and now.is_calibrated_worse_than(before):
                raise RefusedError(
                    f"the calibration of `{head}` on {rows.num_rows} golden rows, mean "
                    f"prediction over mean label, goes from {before.calibration:.3g} "
                    f"to {now.calibration:.3g}; `calibration` allows {least:g} to "
                    f"{most:g}"
                )


def scores(
    labels: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]
) -> dict[str, Score]:
    """Returns the scores of the heads that predict probabilities of labels.

    Args:
      labels: Label -> values, `[rows]`; a head of its name predicts it.
      predictions: Output -> predictions, `[rows, ...]`.
    """
    found = {}
    for name, label in labels.items():
        values = predictions.get(name)
        if values is None or values.shape != label.shape:
            continue
        known = np.isfinite(label)
        label, value = label[known], values.astype(np.float64)[known]
        is_probability = ((label >= 0) & (label <= 1)).all() and (
            (value >= 0) & (value <= 1)
        ).all()
        if not len(label) or not is_probability:
            continue
        value = np.clip(value, _TINY, 1 - _TINY)
        losses = label * np.log(value) + (1 - label) * np.log1p(-value)
        clicks = float(label.mean())
        calibration = float(value.mean()) / clicks if clicks else math.nan
        found[name] = Score(float(-losses.mean()), calibration)
    return found
