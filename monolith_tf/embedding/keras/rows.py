"""The rows of one table in this process, by keys of all 64 bits."""

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
from monolith_tf.embedding.shard.row_blocks import MAX_ROWS
from monolith_tf.embedding.shard.shard import Found
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.embedding.shard.shard_rows import COUNTERS
from monolith_tf.embedding.shard.shard_rows import Clock
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor

_CHUNK_BYTES = 1 << 26
_CAPACITY = 1 << 10  # A model may have a layer for each of many features.
_NO_CLOCK = Clock((), ())


class KeyedRows(Bindable):
    """Rows of one table by any int64, without collisions.

    One shard of a store, whose ids are the keys as they stand: there is one table, so
    no bit of them says which; and no row is ever freed, so none marks that.

    Args:
      name: Of the table; initial values depend on it.
      spec: What a row is.
      seed: Of initial values.
      capacity: Keys there is room for at first, a thousand when not given; more is made
        when it is needed. Memory is taken only as rows are written.
    """

    own: ClassVar[tuple[str, ...]] = "_shard", "_is_full"

    def __init__(
        self, name: str, spec: SliceSpec, *, seed: int, capacity: int | None
    ) -> None:
        table = TableSpec(name=name, slot=0, slices=(spec,))
        (self.group,) = layout.merge_tables([table])
        self._seed = seed
        self._shard = Shard(
            self.group,
            device=HOST,
            seed=seed,
            is_exact=True,
            is_raw=True,
            capacity=1 + (capacity or _CAPACITY),  # Row 0 is nobody's.
        )
        with tf.device(HOST):
            message = (
                f"Embedding table `{name}` is full: a table holds at most "
                f"{MAX_ROWS - 1} keys."
            )
            self._is_full = tf.Variable(message, trainable=False)
            self.packed = Packed(self, order=self._shard.packed)

    def read(self, keys: Tensor) -> Tensor:
        """Weights of keys, `[n, dim]`; zeros for a key that has no row.

        Args:
          keys: `[n]`, int64, not necessarily distinct.
        """
        keys = tf.convert_to_tensor(keys, tf.int64)
        with tf.device(HOST):
            rows = self._shard.packed.call("read", keys, writes=False)
        return tf.ensure_shape(rows, [None, self.group.dim])

    def lookup(self, keys: Tensor, *, insert: bool) -> PulledShard:
        """Finds the rows of distinct keys.

        Args:
          keys: `[n]`, int64.
          insert: Whether keys without a row are given one.

        Returns:
          The weights, `[n, dim]`, and what `apply_gradients` needs.
        """
        keys = tf.convert_to_tensor(keys, tf.int64)
        with tf.device(HOST):
            found = self.packed.call("insert" if insert else "find", keys)
        # One trace for all tables does not know how wide a row is.
        rows = tf.ensure_shape(found.weights, [None, self.group.dim])
        return PulledShard((), keys, ())._replace(**found._asdict() | {"weights": rows})

    def apply_gradients(
        self, found: PulledShard, gradients: Tensor, step: Tensor
    ) -> Tensor:
        """Updates rows.

        Args:
          found: What a lookup returned.
          gradients: `[n, dim]`, float32.
          step: Number of updates before this one, int64.

        Returns:
          The number of rows updated, when they are.
        """
        with tf.device(HOST):
            return self.packed.call("update", found, gradients, step)

    # What follows is called by `packed.call`.

    def find(self, keys: Tensor) -> Found:
        """Does what `lookup` does, without inserting."""
        return self._shard.lookup(PulledShard((), keys, ()), ())

    def insert(self, keys: Tensor) -> Found:
        """Does what `lookup` does, inserting."""
        found = self._shard.lookup(PulledShard((), keys, ()), _NO_CLOCK)
        has_room = tf.reduce_all(found.numbers > 0)
        message = self._is_full.read_value()
        check = tf.raw_ops.Assert(condition=has_room, data=[message])
        with tf.control_dependencies([check]):
            return found._replace(weights=tf.identity(found.weights))

    def update(self, found: PulledShard, gradients: Tensor, step: Tensor) -> Tensor:
        """Does what `apply_gradients` does."""
        return self._shard.apply_gradients(found, gradients, Clock(step, ()))

    # What follows is called eagerly.

    def num_rows(self) -> int:
        """How many keys have a row."""
        return int(self._shard.next_row) - 1

    def num_dropped(self) -> int:
        """Row gradients that were not finite, since the rows were last cleared."""
        return int(self._shard.counters[0, COUNTERS.index("dropped")])

    def changes(self) -> tuple[int, int]:
        """Numbers that change whenever a row does."""
        return int(self._shard.changes), int(self._shard.version)

    def chunks(self, *, with_state: bool = True) -> Iterator[Chunk]:
        """All rows, some at a time; a chunk's `ids` are keys."""
        size = max(1, _CHUNK_BYTES // self.group.row_bytes)
        return self._shard.chunks(size, with_state=with_state)

    def load(self, chunk: Chunk) -> None:
        """Writes rows of distinct keys."""
        self._shard.load(chunk)

    def clear(self) -> None:
        """Forgets all rows."""
        self._shard.clear()

    def assign(self, keys: np.ndarray, weights: np.ndarray) -> None:
        """Writes the weights of distinct keys, their optimizer state as of new rows."""
        _, state = row_update.initial_rows(
            self.group,
            tf.constant(keys, tf.int64),
            group_kind.slice_keys(self.group, self._seed),
        )
        self.load(Chunk(keys, weights, state.numpy(), {}))
