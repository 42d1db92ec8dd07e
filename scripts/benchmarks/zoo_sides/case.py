"""The network and the examples of the benchmark `zoo`, for all sides."""

import abc
import dataclasses
import functools
import json

import numpy as np
from pyarrow import parquet
from sides import worker


@dataclasses.dataclass(frozen=True)
class Case:
    """A parallel DCNv2 over features of one id each, and the paths of its examples.

    Attributes:
      config: Our config, the source of all values below.
      train: Parquet file with the examples of an epoch.
      eval: Parquet file with the examples to score.
      folder: Folder for a side's files.
      features: Columns with ids.
      label: Column with 0 or 1.
      batch: Examples of a step.
      dim: Width of an embedding.
      cross_layers: Cross layers, each with a full matrix.
      units: Widths of the deep tower's hidden layers.
      dropout: Share of a hidden layer's entries that are zeroed.
      momentum: Momentum of the moving averages of batch normalization.
      epsilon: Added to the variance there.
      l2: Factor of an embedding row that is added to its gradient at every step.
      learning_rate: Adam's learning rate.
      adam_epsilon: Adam's epsilon, added to the denominator.
      clip_norm: Bound on the global norm of the gradients.
    """

    config: str
    train: str
    eval: str
    folder: str
    features: list[str]
    label: str
    batch: int
    dim: int
    cross_layers: int
    units: list[int]
    dropout: float
    momentum: float
    epsilon: float
    l2: float
    learning_rate: float
    adam_epsilon: float
    clip_norm: float


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples in memory.

    Attributes:
      ids: Ids of each feature, numbered from 0, `[rows, features]`, int64.
      labels: 0 or 1, `[rows]`, float32.
    """

    ids: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Data:
    """Both splits.

    Attributes:
      train: The examples of an epoch.
      eval: The examples to score.
      sizes: Number of ids of each feature.
    """

    train: Examples
    eval: Examples
    sizes: list[int]


def read(case: Case) -> Data:
    """Reads the files."""
    tables = [parquet.read_table(path) for path in (case.train, case.eval)]
    rows = np.cumsum([table.num_rows for table in tables])[:1]
    sizes, columns = [], []
    for name in case.features:
        values = np.concatenate([table[name].to_numpy() for table in tables])
        found, ids = np.unique(values, return_inverse=True)
        sizes.append(len(found))
        columns.append(ids.astype(np.int64))
    splits = [
        Examples(ids, table[case.label].to_numpy().astype(np.float32))
        for ids, table in zip(np.split(np.stack(columns, 1), rows), tables, strict=True)
    ]
    return Data(*splits, sizes)


class Trainer(abc.ABC):
    """A side: creates its network, and trains it epoch by epoch.

    Args:
      case: The fields of a `Case`.
    """

    def __init__(self, case: str) -> None:
        self._case = Case(**json.loads(case))

    @functools.cached_property
    def _data(self) -> Data:
        return read(self._case)

    @abc.abstractmethod
    def versions(self) -> dict:
        """Returns library -> version, for the report."""

    @abc.abstractmethod
    def parameters(self) -> int:
        """Returns the number of trained parameters."""

    @abc.abstractmethod
    def epoch(self) -> None:
        """Trains on every example once, in a new order."""

    @abc.abstractmethod
    def predict(self, give: str) -> None:
        """Writes the probabilities of the split `eval` to a file, `[rows]`."""

    def time(self) -> tuple[float, float]:
        """Returns the seconds of an epoch: wall time, and CPU time of all cores."""
        return worker.seconds(self.epoch)
