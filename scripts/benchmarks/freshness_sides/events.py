"""The events of the benchmark: their features, ids and labels."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import orjson
import pyarrow as pa
from pyarrow import parquet

_POOL = 100_000
_PROBES_FROM = 1 << 40
_CONTROL = 1 << 41


@dataclasses.dataclass(frozen=True)
class Case:
    """The size of the job.

    Attributes:
      features: Features of one id each, with a table each.
      dim: Width of a row.
      rows: Rows of all tables together.
      batch: Rows of a batch.
      partitions: Of the topic.
      drift: How far the ids of a feature move in a second.
      expire_after_steps: As in the tables' config; 0 for never.
    """

    features: int = 26
    dim: int = 16
    rows: int = 5_000_000
    batch: int = 1024
    partitions: int = 4
    drift: float = 0.0
    expire_after_steps: int = 0

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [f"f{number:02}" for number in range(self.features)]

    @property
    def ids(self) -> int:
        """Ids of each table before the stream begins."""
        return self.rows // self.features


def write_past(case: Case, path: pathlib.Path) -> None:
    """Writes a file in which every id occurs once."""
    rng = np.random.default_rng(0)
    columns = {name: np.arange(case.ids) for name in case.names}
    clicks = rng.integers(0, 2, case.ids)
    parquet.write_table(pa.table({**columns, "click": clicks}), path)


class Pool:
    """Events that repeat; their ids move on with time if the case says so.

    Args:
      case: The job.
    """

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(1)
        shape = [_POOL, case.features]
        # Log-uniform, so that some ids are in every batch.
        self._ids = np.exp(rng.uniform(0, np.log(case.ids), shape)).astype(np.int64)
        # Something to learn: the parity of two ids.
        is_odd = (self._ids[:, 0] + self._ids[:, 1]) % 2
        chance = np.where(is_odd, 0.8, 0.2)
        self._clicks = (rng.uniform(size=_POOL) < chance).astype(np.int64).tolist()
        self._case = case
        self._messages: list[bytes] = []
        if not case.drift:
            self._messages = [self._message(place, 0) for place in range(_POOL)]

    def message(self, number: int, seconds: float) -> bytes:
        """Returns an event.

        Args:
          number: Its number.
          seconds: Time since the first one.
        """
        place = number % _POOL
        if self._messages:
            return self._messages[place]
        return self._message(place, int(seconds * self._case.drift))

    def _message(self, place: int, shift: int) -> bytes:
        ids = (self._ids[place] + shift).tolist()
        return message(self._case, ids, self._clicks[place])


def message(case: Case, ids: list[int], click: int) -> bytes:
    """Returns one event as JSON."""
    return orjson.dumps({**dict(zip(case.names, ids, strict=True)), "click": click})


def probe(case: Case, number: int, click: int) -> bytes:
    """Returns an event of a probe, whose ids occur in no other event."""
    return message(case, [_PROBES_FROM + number] * case.features, click)


def requests(case: Case, probes: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns the inputs for all probes, and last for ids that never occur."""
    ids = np.append(_PROBES_FROM + np.array(probes), _CONTROL)
    return dict.fromkeys(case.names, ids)
