"""The rows of one table in this process, with 64-bit keys."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.lookup.pulled import PulledShard
from monolith_tf.embedding.placement import HOST
from monolith_tf.embedding.shard import group_kind
from monolith_tf.embedding.shard import row_update
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.bindable import Packed
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.clock import Clock
from monolith_tf.embedding.shard.row_blocks import MAX_ROWS
from monolith_tf.embedding.shard.shard import COUNTERS
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.shard.shard_rows import ShardRows
from monolith_tf.embedding.shard.step import Found
from monolith_tf.embedding.shard.step import ShardStep
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor

_CHUNK_BYTES = 1 << 26
_CAPACITY = 1 << 10  # A model may have a layer for each of many features.
_NO_CLOCK = Clock((), ())


class KeyedRows(Bindable):
    """Rows of one table with any int64 as key, without collisions.

    It is one shard of a store that uses the keys as ids. All 64 bits are free for the
    key: there is only one table, so none select a table, and rows are never freed, so
    none mark freed rows.

    Args:
      name: Name of the table; initial values depend on it.
      spec: The only slice of a row.
      seed: Seed of the initial values.
      capacity: Keys there is first room for, about a thousand by default; the table
        grows on demand. Memory is allocated only as rows are written.
    """

    own: ClassVar[tuple[str, ...]] = "_step", "_is_full"

    def __init__(
        self, name: str, spec: SliceSpec, *, seed: int, capacity: int | None
    ) -> None:
        table = TableSpec(name=name, slot=0, slices=(spec,), large_integers="exact")
        (self.group,) = layout.merge_tables([table])
        self._seed = seed
        self._shard = Shard(
            self.group,
            device=HOST,
            seed=seed,
            capacity=1 + (capacity or _CAPACITY),  # Row 0 belongs to no key.
        )
        self._step = ShardStep(self._shard, is_exact=True)
        with tf.device(HOST):
            message = (
                f"Embedding table `{name}` is full: a table holds at most "
                f"{MAX_ROWS - 1} keys."
            )
            self._is_full = tf.Variable(message, trainable=False)
            self.packed = Packed(self, order=self._step.packed)

    def read(self, keys: Tensor) -> Tensor:
        """Returns weights of keys, `[n, dim]`; zeros for a key without a row.

        Args:
          keys: `[n]`, int64, not necessarily distinct.
        """
        keys = tf.convert_to_tensor(keys, tf.int64)
        with tf.device(HOST):
            rows = self._step.packed.call("read", keys, writes=False)
        return tf.ensure_shape(rows, [None, self.group.dim])

    def lookup(self, keys: Tensor, *, insert: bool) -> PulledShard:
        """Finds the rows of distinct keys.

        Args:
          keys: `[n]`, int64.
          insert: Whether to make rows for keys without one.

        Returns:
          The weights, `[n, dim]`, and what `apply_gradients` needs.
        """
        keys = tf.convert_to_tensor(keys, tf.int64)
        with tf.device(HOST):
            found = self.packed.call("insert" if insert else "find", keys)
        # All tables share one trace, so its output has no static width.
        rows = tf.ensure_shape(found.weights, [None, self.group.dim])
        return PulledShard((), keys, ())._replace(**found._asdict() | {"weights": rows})

    def apply_gradients(
        self, found: PulledShard, gradients: Tensor, step: Tensor
    ) -> Tensor:
        """Updates rows.

        Args:
          found: The result of a lookup.
          gradients: `[n, dim]`, float32.
          step: Number of previous updates, int64.

        Returns:
          The number of rows updated, available once they are updated.
        """
        with tf.device(HOST):
            return self.packed.call("update", found, gradients, step)

    # The following methods are called by `packed.call`.

    def find(self, keys: Tensor) -> Found:
        """Implements `lookup` without inserting."""
        return self._step.lookup(PulledShard((), keys, ()), ())

    def insert(self, keys: Tensor) -> Found:
        """Implements `lookup` with inserting."""
        found = self._step.lookup(PulledShard((), keys, ()), _NO_CLOCK)
        has_room = tf.reduce_all(found.numbers > 0)
        message = self._is_full.read_value()
        check = tf.raw_ops.Assert(condition=has_room, data=[message])
        with tf.control_dependencies([check]):
            return found._replace(weights=tf.identity(found.weights))

    def update(self, found: PulledShard, gradients: Tensor, step: Tensor) -> Tensor:
        """Implements `apply_gradients`."""
        return self._step.apply_gradients(found, gradients, Clock(step, ()))

    # The following methods are called eagerly.

    def num_rows(self) -> int:
        """Returns the number of keys with a row."""
        return int(self._shard.next_row) - 1

    def num_dropped(self) -> int:
        """Returns how many row gradients were not finite since the last `clear`."""
        return int(self._shard.counters[0, COUNTERS.index("dropped")])

    def changes(self) -> tuple[int, int]:
        """Returns numbers that change whenever a row changes."""
        return int(self._shard.changes), int(self._shard.version)

    def chunks(self, *, with_state: bool = True) -> Iterator[Chunk]:
        """Yields all rows in chunks, whose `ids` are keys."""
        size = max(1, _CHUNK_BYTES // self.group.row_bytes)
        return ShardRows(self._shard, with_state=with_state).chunks(size)

    def load(self, chunk: Chunk) -> None:
        """Writes rows of distinct keys."""
        self._shard.load(chunk)

    def clear(self) -> None:
        """Removes all rows."""
        self._shard.clear()

    def assign(self, keys: np.ndarray, weights: np.ndarray) -> None:
        """Writes the weights of distinct keys, and resets their optimizer state."""
        _, state = row_update.initial_rows(
            self.group,
            tf.constant(keys, tf.int64),
            group_kind.slice_keys(self.group, self._seed),
        )
        self.load(Chunk(keys, weights, state.numpy(), {}))
