"""A reference implementation of the store: one table as a dictionary of rows.

It handles one row at a time and is slow. The partitioned store must give bitwise equal
results with any number of shards; its tests compare the two.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from monolith_tf import schedules
from monolith_tf.embedding import initializers
from monolith_tf.embedding.optimizers import row_state
from monolith_tf.embedding.optimizers import rules as optimizers
from monolith_tf.embedding.shard import admission
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec

Parts: TypeAlias = list[np.ndarray]
"""A slice of one row: its weights, then the parts of its optimizer state."""

_SECS_PER_DAY = 86_400


@dataclasses.dataclass
class Row:
    """One id's row.

    Attributes:
      parts: Slice name -> weights and optimizer state.
      step: The step of its last update, or of its insertion.
      secs: The time of its last update, or of its insertion.
    """

    parts: dict[str, Parts]
    step: int
    secs: int


class Table:
    """One table; it counts occurrences exactly, even if the spec says "sketch".

    Attributes:
      rows: Feature id -> row.
      occurrences: Feature id -> occurrences so far, of ids not admitted yet.
      counters: Counts of "inserted", "refused", "dropped", "expired", "evicted".

    Args:
      spec: The table.
      seed: Seed of the initial values.
    """

    def __init__(self, spec: TableSpec, seed: int = 0) -> None:
        self.spec = spec
        self.rows: dict[int, Row] = {}
        self.occurrences: Counter[int] = Counter()
        self.counters: Counter[str] = Counter()
        self._seed = seed

    def lookup(
        self, ids: Sequence[int], *, training: bool, step: int = 0, secs: int = 0
    ) -> np.ndarray:
        """Returns weights of all slices, `[n, row_dim]`; zeros for ids without a row.

        In training a table that inserts at lookup first makes rows for new ids.
        """
        if training and self.spec.unknown == "insert":
            self._insert(ids, step, secs)
        rows = [self._weights(id_) for id_ in ids]
        return np.array(rows, np.float32).reshape(len(ids), self.spec.row_dim)

    def apply_gradients(
        self, ids: Sequence[int], gradients: np.ndarray, *, step: int, secs: int = 0
    ) -> None:
        """Updates the rows of a batch.

        Args:
          ids: Every occurrence of an id in the batch.
          gradients: One per occurrence, `[n, row_dim]`, float32.
          step: The global step.
          secs: The time of the batch.
        """
        if self.spec.unknown == "zeros":
            self._insert(ids, step, secs)
        sums: dict[int, np.ndarray] = {}
        for id_, gradient in zip(ids, gradients, strict=True):
            sums[id_] = sums.get(id_, np.zeros_like(gradient)) + gradient
        if self.spec.update_rows == "all":
            nothing = np.zeros(self.spec.row_dim, np.float32)
            sums = {id_: nothing for id_ in self.rows} | sums
        for id_, gradient in sums.items():
            if id_ not in self.rows:
                self.counters["dropped"] += 1
                continue
            row = self.rows[id_]
            start = 0
            for part in self.spec.row_slices():
                of_slice = gradient[start : start + part.dim]
                row.parts[part.name] = _updated(
                    part, row.parts[part.name], of_slice, step
                )
                start += part.dim
            row.step, row.secs = step, secs

    def maintain(self, step: int, secs: int) -> None:
        """Drops expired rows, then the oldest rows above `max_rows`."""
        for id_, row in list(self.rows.items()):
            steps, days = self.spec.expire_after_steps, self.spec.expire_after_days
            if (steps is not None and step - row.step >= steps) or (
                days is not None and secs - row.secs >= days * _SECS_PER_DAY
            ):
                del self.rows[id_]
                self.counters["expired"] += 1
        if self.spec.max_rows is not None:
            by_age = sorted(self.rows, key=lambda id_: (self.rows[id_].step, id_))
            for id_ in by_age[: max(0, len(by_age) - self.spec.max_rows)]:
                del self.rows[id_]
                self.counters["evicted"] += 1

    def _insert(self, ids: Sequence[int], step: int, secs: int) -> None:
        """Makes rows for new ids that have occurred often enough."""
        for id_, count in Counter(ids).items():
            if id_ in self.rows:
                continue
            if not self._is_admitted(id_, count, step):
                self.counters["refused"] += 1
                continue
            parts = {
                part.name: _initial(part, self.spec.name, id_, self._seed)
                for part in self.spec.row_slices()
            }
            self.rows[id_] = Row(parts, step, secs)
            self.counters["inserted"] += 1

    def _is_admitted(self, id_: int, count: int, step: int) -> bool:
        """Counts an id without a row, and returns whether it gets one."""
        admit_after = self.spec.admit_after
        if admit_after > 1 and self.spec.admission == "probabilistic":
            ids, counts, threshold = tf.constant(
                [[id_], [count], [admit_after]], tf.int64
            )
            key = tf.constant(admission.draw_key(self._seed), tf.int64)
            drawn = admission.is_drawn(key, ids, counts, threshold, step)
            return bool(drawn[0])
        self.occurrences[id_] += count
        if self.occurrences[id_] < admit_after:
            return False
        del self.occurrences[id_]
        return True

    def _weights(self, id_: int) -> np.ndarray:
        if id_ not in self.rows:
            return np.zeros(self.spec.row_dim, np.float32)
        parts = self.rows[id_].parts
        return np.concatenate([parts[s.name][0] for s in self.spec.row_slices()])


def _initial(part: SliceSpec, table: str, id_: int, seed: int) -> Parts:
    key = initializers.slice_key(seed, table, part.name)
    ids = tf.constant([id_], tf.int64)
    weights = initializers.initial_values(part.initializer, part.dim, ids, key)[0]
    state = np.array(optimizers.initial_state(part.optimizer, part.dim), np.float32)
    dims = row_state.part_dims(optimizers.kind(part.optimizer), part.dim)[1:]
    return [weights.numpy(), *np.split(state, np.cumsum(dims)[:-1])][: 1 + len(dims)]


def _updated(part: SliceSpec, parts: Parts, gradient: np.ndarray, step: int) -> Parts:
    if part.clip_norm is not None:
        norm = np.sqrt(np.sum(np.square(gradient)))
        if norm > part.clip_norm:
            gradient = gradient * (np.float32(part.clip_norm) / norm)
    if part.l2:
        gradient = gradient + np.float32(part.l2) * parts[0]
    new_parts = optimizers.update(
        optimizers.kind(part.optimizer),
        [tf.constant(value[np.newaxis]) for value in parts],
        tf.constant(gradient[np.newaxis]),
        schedules.rate_at(part.optimizer.learning_rate, tf.constant(step)),
        optimizers.hyperparameters(part.optimizer),
        tf.constant(step, tf.int64),
    )
    return [value[0].numpy() for value in new_parts]
