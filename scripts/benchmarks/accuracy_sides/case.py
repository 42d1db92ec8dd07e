"""The settings and the examples of the benchmark `accuracy`, for all sides."""

import abc
import dataclasses
import json
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and how it trains; ids are numbered from 1, and 0 is no id.

    Attributes:
      seed: Seed of the initial weights and of dropout.
      sizes: Embedding table -> its number of rows, including row 0.
      tables: Column with ids -> its table.
      dense: Columns with numbers.
      labels: Names of the labels.
      batch: Examples of a step.
      dim: Width of an embedding.
      layers: Sizes of the network, by names that the side gives them.
      l2: Factor of an embedding row that is added to its gradient at every step.
      epsilon: Adam's epsilon, added to the denominator.
      clip_norm: Bound on the global norm of the gradients; 0 for none.
    """

    seed: int
    sizes: dict[str, int]
    tables: dict[str, str]
    dense: list[str]
    labels: list[str]
    batch: int
    dim: int
    layers: dict
    l2: float
    epsilon: float
    clip_norm: float


class Rows:
    """Examples in the order in which they are trained or scored.

    Args:
      path: File with a column each of ids, numbers and labels, `[rows]`; a list of ids
        has all of its values, one row's after the other's, and the rows' lengths in
        `<column>/lengths`.
    """

    def __init__(self, path: str) -> None:
        with np.load(path) as file:
            self._columns = dict(file)
        self._ends = {
            name: np.cumsum(self._columns[f"{name}/lengths"])
            for name in self._columns
            if f"{name}/lengths" in self._columns
        }

    def batches(self, size: int, labels: list[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of columns; lists are padded with 0 to the longest."""
        rows = len(self._columns[labels[0]])
        for begin in range(0, rows, size):
            end = min(begin + size, rows)
            yield {
                name: self._padded(name, begin, end)
                if name in self._ends
                else column[begin:end]
                for name, column in self._columns.items()
                if "/" not in name
            }

    def _padded(self, name: str, begin: int, end: int) -> np.ndarray:
        lengths = self._columns[f"{name}/lengths"][begin:end]
        first = self._ends[name][begin] - lengths[0]
        is_value = np.arange(max(1, lengths.max())) < lengths[:, np.newaxis]
        padded = np.zeros(is_value.shape, np.int64)
        padded[is_value] = self._columns[name][first : self._ends[name][end - 1]]
        return padded


class Trainer(abc.ABC):
    """A side: makes its network, and trains it epoch by epoch.

    Args:
      case: The fields of a `Case`.
    """

    def __init__(self, case: str) -> None:
        self._case = Case(**json.loads(case))

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """Returns library -> version, for the report."""

    @abc.abstractmethod
    def parameters(self) -> int:
        """Returns the number of trained parameters."""

    @abc.abstractmethod
    def epoch(self, take: str, rates: list[float]) -> None:
        """Trains on the rows of a file in their order, each step at its rate."""

    @abc.abstractmethod
    def predict(self, take: str, give: str) -> None:
        """Writes the probabilities of the rows of a file, `[labels, rows]`."""

    def _batches(self, take: str) -> Iterator[dict[str, np.ndarray]]:
        return Rows(take).batches(self._case.batch, self._case.labels)
