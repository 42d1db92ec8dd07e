"""Base classes of metrics, which collect rows or sums per batch, then one number."""

import abc
from typing import Any
from typing import ClassVar
from typing import NamedTuple
from typing import Self
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from monolith_tf.types import JsonDict

Array: TypeAlias = npt.NDArray[Any]


class Batch(NamedTuple):
    """One checked batch; every column is `[batch]`."""

    predictions: Array  # float32
    labels: Array  # float32
    weights: Array | None  # float32, not negative; None means all ones
    keys: Any  # integers or strings, None for metrics that need none


class Metric(abc.ABC):
    """A number over a set of examples, collected in any number of `update` calls.

    The result does not depend on how the examples were split into batches or into
    metrics that were merged, except for the rounding of float64 sums. If the metric is
    undefined, as each class describes, the result is NaN without an error or a warning:
    an evaluation of many slices has empty ones.

    Metrics hold only NumPy arrays, so processes can exchange them by pickle.

    Attributes:
      higher_is_better: True or False; None if neither end is best.
      needs_keys: Whether `update` requires `keys`.
    """

    higher_is_better: ClassVar[bool | None] = None
    needs_keys: ClassVar[bool] = False

    def update(
        self,
        predictions: npt.ArrayLike,
        labels: npt.ArrayLike,
        weights: npt.ArrayLike | None = None,
        keys: npt.ArrayLike | None = None,
    ) -> None:
        """Adds one batch.

        Args:
          predictions: `[batch]` or `[batch, 1]`; kept as float32.
          labels: Like `predictions`.
          weights: Optional example weights, not negative; 1 by default.
          keys: The user or query of each example, integers or strings, for metrics per
            user or query. Other metrics ignore it.

        Raises:
          ValueError: If the columns differ in length or have values the metric does not
            support.
        """
        columns = _vector("predictions", predictions, np.float32)
        batch = Batch(
            columns,
            _vector("labels", labels, np.float32, columns.size),
            None
            if weights is None
            else _vector("weights", weights, np.float32, columns.size),
            self._checked_keys(keys, columns.size),
        )
        if batch.weights is not None and not np.all(batch.weights >= 0):
            raise ValueError(
                "`weights` must not be negative or NaN. "
                f"Received: weights={batch.weights}. Leave bad examples out."
            )
        self._add(batch)

    def merge(self, other: Self) -> None:
        """Adds all that `other` has seen; `other` does not change.

        Raises:
          TypeError: If `other` is of another class.
          ValueError: If `other` was created with other arguments.
        """
        if type(other) is not type(self):
            raise TypeError(
                f"`other` must be a {type(self).__name__}. "
                f"Received: other={type(other).__name__}."
            )
        if other._settings() != self._settings():
            raise ValueError(
                f"`other` must have the arguments {self._settings()}. "
                f"Received: other with {other._settings()}."
            )
        self._merge(other)

    @abc.abstractmethod
    def result(self) -> float:
        """Returns the value over everything seen since the last `reset`."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forgets everything seen."""

    @abc.abstractmethod
    def _add(self, batch: Batch) -> None:
        """Adds a checked batch."""

    @abc.abstractmethod
    def _merge(self, other: Self) -> None:
        """Adds the state of a metric of the same class and settings."""

    def _settings(self) -> JsonDict:
        """Returns the constructor arguments that merged metrics must have in common."""
        return {}

    def _checked_keys(self, keys: npt.ArrayLike | None, size: int) -> Array | None:
        if not self.needs_keys:
            return None
        if keys is None:
            raise ValueError(
                f"{type(self).__name__} needs `keys`, the user or query of each "
                "example. Received: keys=None."
            )
        column = _vector("keys", keys, None, size)
        if not size:
            return column
        if column.dtype.kind == "O" and isinstance(column[0], bytes | str):
            # String tensors arrive as objects, which NumPy sorts slowly.
            column = column.astype("S" if isinstance(column[0], bytes) else "U")
        if column.dtype.kind in "iu":
            return column.astype(np.int64)
        if column.dtype.kind not in "SU":
            raise ValueError(
                "`keys` must be integers or strings. "
                f"Received: keys of dtype {column.dtype}."
            )
        return column


class SumMetric(Metric):
    """A metric that is a function of a few sums over examples."""

    num_sums: ClassVar[int]

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """See `Metric.reset`."""
        self._sums = np.zeros(self.num_sums, np.float64)

    def result(self) -> float:
        """See `Metric.result`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(self._value(self._sums))

    def _add(self, batch: Batch) -> None:
        labels = batch.labels.astype(np.float64)
        weights = np.ones_like(labels)
        if batch.weights is not None:
            weights = batch.weights.astype(np.float64)
        predictions = batch.predictions.astype(np.float64)
        self._sums += self._terms(predictions, labels, weights)

    def _merge(self, other: Self) -> None:
        self._sums = self._sums + other._sums

    @abc.abstractmethod
    def _terms(self, predictions: Array, labels: Array, weights: Array) -> list[Any]:
        """Returns the terms that a batch (float64) adds to the sums."""

    @abc.abstractmethod
    def _value(self, sums: Array) -> float:
        """Returns the metric; division by zero is allowed and returns NaN."""


class RowMetric(Metric):
    """A metric that keeps every example: 8 bytes, plus 4 for weights, plus the key."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """See `Metric.reset`."""
        self._batches: list[Batch] = []

    def result(self) -> float:
        """See `Metric.result`."""
        rows = self._rows()
        return float("nan") if rows is None else float(self._value(rows))

    def _add(self, batch: Batch) -> None:
        if batch.labels.size:
            # Copies: a reader may reuse its buffers.
            copies = [c if c is None else c.copy() for c in batch]
            self._batches.append(Batch._make(copies))

    def _merge(self, other: Self) -> None:
        self._batches = self._batches + other._batches

    def _rows(self) -> Batch | None:
        """Returns all examples as one batch, or None if there are none."""
        if not self._batches:
            return None
        if len(self._batches) > 1:
            predictions, labels, weights, keys = zip(*self._batches, strict=True)
            if any(w is not None for w in weights):
                weights = tuple(
                    np.ones_like(p) if w is None else w
                    for p, w in zip(predictions, weights, strict=True)
                )
            joined = [
                None if column[0] is None else np.concatenate(column)
                for column in (predictions, labels, weights, keys)
            ]
            self._batches = [Batch._make(joined)]
        return self._batches[0]

    @abc.abstractmethod
    def _value(self, rows: Batch) -> float:
        """Returns the metric over at least one example."""


def check_binary(name: str, labels: Array) -> None:
    """Raises ValueError unless all `labels` are 0 or 1."""
    if not np.all((labels == 0) | (labels == 1)):
        raise ValueError(
            f"{name} needs `labels` that are 0 or 1. Received: labels={labels}."
        )


def check_probabilities(name: str, predictions: Array) -> None:
    """Raises ValueError if one of `predictions` is outside [0, 1]; NaN passes."""
    if np.any((predictions < 0) | (predictions > 1)):
        raise ValueError(
            f"{name} needs `predictions` that are probabilities, from 0 to 1. "
            f"Received: predictions={predictions}. Apply a sigmoid to logits."
        )


def _vector(
    name: str,
    values: npt.ArrayLike,
    dtype: npt.DTypeLike | None,
    size: int | None = None,
) -> Array:
    """Returns `values` as `[batch]`, checked against `size`."""
    array = np.asarray(values, dtype)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or (size is not None and array.size != size):
        expected = "[batch] or [batch, 1]" if size is None else f"[{size}]"
        raise ValueError(
            f"`{name}` must have shape {expected}. "
            f"Received: {name} of shape {np.shape(values)}."
        )
    return array
