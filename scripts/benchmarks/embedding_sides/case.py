"""The case of the benchmark `embedding`, and its ids, for all sides."""

import abc
import dataclasses
import json
import os

import numpy as np
from sides import worker

LEARNING_RATE = 0.05
ACCUMULATOR = 0.1  # Adagrad's initial value.


@dataclasses.dataclass(frozen=True)
class Case:
    """Batches of ids, one id per feature, each feature with its own table.

    Attributes:
      batch: Examples.
      features: Features.
      dim: Width of an embedding.
      ids: Ids of a feature.
      first_id: The store's offset for the drawn ids; the other sides number rows
        from 0.
      skew: An id of rank `r` is drawn with probability proportional to `r ** -skew`.
      batches: Number of different batches, used in a cycle; 590,000 ids by default.
      cores: Processors and threads; 0 leaves them alone.
    """

    batch: int = 4096
    features: int = 26
    dim: int = 16
    ids: int = 200_000
    first_id: int = 0
    skew: float = 1.0
    batches: int = 17
    cores: int = 1

    def draw(self) -> np.ndarray:
        """Returns ids below `ids`, `[batches, features, batch]`, int64."""
        rng = np.random.default_rng(0)
        uniform = rng.random((self.batches, self.features, self.batch))
        if self.skew == 1.0:
            ranks = self.ids**uniform
        else:
            power = 1.0 - self.skew
            ranks = ((self.ids**power - 1.0) * uniform + 1.0) ** (1.0 / power)
        return np.clip(ranks.astype(np.int64) - 1, 0, self.ids - 1)


def row_numbers(ids: np.ndarray, case: Case) -> np.ndarray:
    """Returns ids `[..., features, batch]` as rows of the stacked tables."""
    return ids + np.arange(case.features)[:, np.newaxis] * case.ids


class Trainer(abc.ABC):
    """A side: makes its tables, and trains them on one batch after another.

    The loss is half the sum of squares of all embeddings: its gradients are the
    embeddings.

    Args:
      case: Fields of `Case`, as JSON.
    """

    def __init__(self, case: str) -> None:
        self._case = Case(**json.loads(case))
        self._done = 0
        cores = self._case.cores
        if cores and hasattr(os, "sched_setaffinity"):
            # The last ones: core 0 serves interrupts.
            allowed = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, allowed[-cores:])

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """Returns the versions that the times depend on."""

    @abc.abstractmethod
    def make(self, take: str) -> None:
        """Makes tables with the weights in a file, `[features * ids, dim]`."""

    @abc.abstractmethod
    def run(self, steps: int) -> None:
        """Runs further steps."""

    @abc.abstractmethod
    def weights(self, give: str) -> None:
        """Writes the embeddings of the first batch, `[features * batch, dim]`."""

    def time(self, steps: int) -> tuple[float, float]:
        """Returns the seconds of a step: wall time, and CPU time of all cores."""
        clock, cpu = worker.seconds(lambda: self.run(steps))
        return clock / steps, cpu / steps
