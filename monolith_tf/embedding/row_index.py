"""Where the rows of a shard are, by id."""

from collections.abc import Sequence

import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf.types import Tensor

_MAX_PLACES = 1 << 23  # Of 4 bytes each.
_MAX_WIDTH = 1 << 20
_SAMPLE = 64


class RowIndex:
    """Row numbers by id; an id that has none has row number 0.

    A hash table knows all ids. Beside it small integers have places of their own, table
    after table, where a row number is read without a search:

        place = (slot - first slot) width + integer,    integer < width

    A batch in which every id has a place is looked up there, and any other batch in the
    hash table.

    Args:
      slots: The tables' slots; None where ids are integers as they stand, without slot
        bits and unmixed.
      capacity: Rows that are expected, which bounds the memory for places.
    """

    def __init__(self, slots: Sequence[int] | None, capacity: int) -> None:
        self._slots = slots
        blocks = max(slots) - min(slots) + 1 if slots else 1
        # Twice the rows, since some tables have more of them than others.
        room = min(_MAX_PLACES, 2 * capacity) // blocks
        self._width = max(1, min(_MAX_WIDTH, room))
        num_places = blocks * self._width
        self._num_places = tf.constant(num_places, tf.uint64)
        self._numbers = tf.Variable(tf.zeros([num_places], tf.int32), trainable=False)
        self._table = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=0
        )

    def find(self, ids: Tensor) -> Tensor:
        """Returns row numbers, int64.

        Args:
          ids: `[n]`, int64.
        """

        def in_table() -> Tensor:
            return self.search(ids)

        def by_places() -> Tensor:
            places = self._places(ids)
            return tf.cond(
                self._are_places(places),
                lambda: tf.cast(self._numbers.sparse_read(places), tf.int64),
                in_table,
            )

        # Hashes of strings, which have no places, show in the first few.
        sample = self._places(ids[:_SAMPLE])
        return tf.cond(self._are_places(sample), by_places, in_table)

    def search(self, ids: Tensor) -> Tensor:
        """Returns the same by the hash table alone, in one operation."""
        return tf.ensure_shape(self._table.lookup(ids), [None])

    def insert(self, ids: Tensor, numbers: Tensor) -> tf.Operation:
        """Tells the rows of distinct ids."""
        with tf.control_dependencies([self._place(ids, numbers)]):
            return self._table.insert(ids, numbers)

    def remove(self, ids: Tensor) -> tf.Operation:
        """Forgets ids."""
        with tf.control_dependencies([self._place(ids, tf.zeros_like(ids))]):
            return self._table.remove(ids)

    def clear(self) -> None:
        """Forgets all ids."""
        self.remove(self._table.export()[0])

    def _place(self, ids: Tensor, numbers: Tensor) -> tf.Operation:
        places = self._places(ids)
        has_place = tf.bitcast(places, tf.uint64) < self._num_places
        return tf.raw_ops.ResourceScatterUpdate(
            resource=self._numbers.handle,
            indices=tf.boolean_mask(places, has_place),
            updates=tf.cast(tf.boolean_mask(numbers, has_place), tf.int32),
        )

    def _places(self, ids: Tensor) -> Tensor:
        """The ids' places; for an id without one, something out of their range."""
        if self._slots is None:
            return ids
        integers = ids_lib.to_integers(ids_lib.hash_of(ids))
        blocks = ids_lib.slot_of(ids) - min(self._slots)
        return tf.where(integers < self._width, blocks * self._width + integers, -1)

    def _are_places(self, places: Tensor) -> Tensor:
        # As unsigned numbers, negative ones are beyond all places.
        return tf.reduce_max(tf.bitcast(places, tf.uint64)) < self._num_places
