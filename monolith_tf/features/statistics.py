"""Mean and standard deviation of numbers in the training data, in one pass."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf.features import encode
from monolith_tf.features import transforms
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.types import JsonDict
from monolith_tf.types import Tensor

_BATCH_SIZE = 8192


class Batches(Protocol):
    """The interface of the training data's source."""

    failure: Exception | None

    def dataset(self, *, batch_size: int, shuffle: bool) -> tf.data.Dataset:
        """Returns one epoch of batches of raw columns."""


class _Moments:
    """Count, mean and sum of squared deviations, merged batch by batch in float64.

    Source: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances", 1979.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(1)
        self.squares = np.zeros(1)

    def add(self, values: np.ndarray) -> None:
        """Adds rows of numbers, [rows, dim]."""
        count = len(values)
        if not count:
            return
        values = values.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity is reported at the end
            mean = values.mean(axis=0)
            squares = ((values - mean) ** 2).sum(axis=0)
            total = self.count + count
            shift = mean - self.mean
            self.mean = self.mean + shift * count / total
            squares += shift**2 * self.count * count / total
        self.squares = self.squares + squares
        self.count = total

    def to_json(self) -> JsonDict:
        """Returns the moments; a constant gets deviation 1, so `zscore` makes it 0."""
        std = np.sqrt(self.squares / self.count)
        std = np.where(std > 0, std, 1.0)
        return {"count": self.count, "mean": self.mean.tolist(), "std": std.tolist()}


def compute(features: Sequence[FeatureSpec], source: Batches) -> JsonDict:
    """Computes the statistics of the training data that transforms need.

    Args:
      features: The features; each with a `zscore` that sets no mean gets statistics of
        its values after the preceding steps.
      source: The train split. It is read once, in the order of the files, and only if a
        feature needs it.

    Returns:
      Feature -> `count`, `mean` and population `std` over all rows, one mean and one
      std for each of the feature's numbers. Plain data for JSON.

    Raises:
      ValueError: If a feature has no value in the data, or one that is not finite.
    """
    wanted = {
        feature.name: (feature, place)
        for feature in features
        if (place := transforms.needs_statistics(feature.transform)) is not None
    }
    if not wanted:
        return {}
    moments = {name: _Moments() for name in wanted}
    try:
        for columns in source.dataset(batch_size=_BATCH_SIZE, shuffle=False):
            for name, (feature, place) in wanted.items():
                values = _values(feature, columns[feature.source_column], place)
                moments[name].add(values)
    except tf.errors.OpError as error:
        if source.failure is None:
            raise
        raise source.failure from error
    for name, found in moments.items():
        if not found.count or not np.isfinite(found.squares).all():
            what = "is not finite" if found.count else "is missing"
            raise ValueError(
                f"Feature `{name}` cannot be standardized: a value of the train data "
                f"{what} at `zscore`. Put `clip` before `zscore`, or remove it."
            )
        logging.info("statistics of `%s`: %s", name, found.to_json())
    return {name: found.to_json() for name, found in moments.items()}


def _values(feature: FeatureSpec, values: Tensor, place: int) -> np.ndarray:
    """Returns a feature's numbers before one of its transforms, [rows, dim]."""
    if isinstance(values, tf.RaggedTensor):
        values = values.flat_values
    values = tf.reshape(encode.raw_numbers(feature, values), [-1, feature.dim])
    return transforms.apply(values, feature.transform[:place], {}).numpy()
