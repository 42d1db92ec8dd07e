"""What all sides of the benchmark `zoo` train: the network, and its examples."""

import abc
import dataclasses
import functools
import json

import numpy as np
from pyarrow import parquet
from sides import worker


@dataclasses.dataclass(frozen=True)
class Case:
    """A parallel DCNv2 over features of one id each, and where its examples are.

    Attributes:
      config: Our config, which all that follows is from.
      train: Parquet file with the examples of an epoch.
      eval: Parquet file with the examples to be scored.
      folder: Where a side may write.
      features: Columns with ids.
      label: Column with 0 or 1.
      batch: Examples of a step.
      dim: Width of an embedding.
      cross_layers: Cross layers, each with a full matrix.
      units: Widths of the deep tower's hidden layers.
      dropout: Share of a hidden layer's entries that are zeroed.
      momentum: What the averages of batch normalization keep of themselves.
      epsilon: Added to the variance there.
      l2: Times a row of the embeddings is added to its gradient, at every step.
      learning_rate: Adam's, as the next.
      adam_epsilon: Added to the denominator.
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
      ids: Of each feature counted from 0, `[rows, features]`, int64.
      labels: 0 or 1, `[rows]`, float32.
    """

    ids: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Data:
    """Both splits.

    Attributes:
      train: The examples of an epoch.
      eval: The examples to be scored.
      sizes: How many ids each feature has.
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
    """A side: makes its network, and trains it for one epoch after another.

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
        """Returns the versions to be reported, by library."""

    @abc.abstractmethod
    def parameters(self) -> int:
        """Returns how many numbers are trained."""

    @abc.abstractmethod
    def epoch(self) -> None:
        """Trains on every example once, in a new order."""

    @abc.abstractmethod
    def predict(self, give: str) -> None:
        """Writes the probabilities of the split `eval` to a file, `[rows]`."""

    def time(self) -> tuple[float, float]:
        """Returns the seconds of an epoch, on the clock and of all processors."""
        return worker.seconds(self.epoch)
