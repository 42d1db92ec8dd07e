"""The rows of one table in this process, by keys of all 64 bits."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import group_kind
from monolith_tf.embedding import layout
from monolith_tf.embedding import row_update
from monolith_tf.embedding.checkpoint_files import Chunk
from monolith_tf.embedding.placement import HOST
from monolith_tf.embedding.pulled import PulledShard
from monolith_tf.embedding.row_blocks import MAX_ROWS
from monolith_tf.embedding.shard import Shard
from monolith_tf.embedding.shard_rows import COUNTERS
from monolith_tf.embedding.shard_rows import Clock
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor

_CHUNK_BYTES = 1 << 26
_CAPACITY = 1 << 10  # A model may have a layer for each of many features.
_NO_CLOCK = Clock((), ())


class KeyedRows:
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
        if not insert:
            return self._find(keys, ())
        found = self._find(keys, _NO_CLOCK)
        message = (
            f"Embedding table `{self.group.tables[0].name}` is full: a table holds at "
            f"most {MAX_ROWS - 1} keys."
        )
        has_room = tf.reduce_all(found.numbers > 0)
        with tf.control_dependencies([tf.debugging.Assert(has_room, [message])]):
            return found._replace(weights=tf.identity(found.weights))

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
            clock = Clock(step, ())
            return self._shard.packed.call("apply_gradients", found, gradients, clock)

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

    def _find(self, keys: Tensor, clock: Clock | tuple[()]) -> PulledShard:
        keys = tf.convert_to_tensor(keys, tf.int64)
        with tf.device(HOST):
            asked = PulledShard((), keys, ())
            found = self._shard.packed.call("lookup", asked, clock)
        # One trace for all tables does not know how wide a row is.
        rows = tf.ensure_shape(found.weights, [None, self.group.dim])
        return PulledShard((), keys, ())._replace(**found._asdict() | {"weights": rows})
