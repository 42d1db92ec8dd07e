"""Indices from keys to row numbers: a hash table, or an array."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from monolith_tf.ids import HASH_BITS
from monolith_tf.types import Tensor


class HashIndex(tf.Module):
    """A hash table of values of any size; takes new keys at any time.

    A key has the slot of its table in its high bits and the value below. In a table
    that is exact, a key is any integer.

    Attributes:
      folds: Whether integers must go through `ids.folded` first.
      table: Key -> row number.

    Args:
      is_exact: Whether the group is one table that is exact.
    """

    def __init__(self, *, is_exact: bool = False) -> None:
        super().__init__(name="hash_index")
        self.folds = not is_exact
        self.table = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=0
        )

    def keys(self, slots: Tensor, values: Tensor) -> Tensor:
        """Returns the keys of values in tables with these slots.

        Values are in [0, 2^48), or negative for no row; any integer in an exact table.
        """
        if not self.folds:
            return values
        high = tf.bitwise.left_shift(slots, tf.constant(HASH_BITS, tf.int64))
        return values | high

    def takes(self, keys: np.ndarray) -> np.ndarray:
        """Returns which keys can have a row."""
        return np.ones(keys.shape, bool)

    def find(self, keys: Tensor) -> Tensor:
        """Returns row numbers of keys, 0 for a key without a row."""
        numbers = self.table.lookup(keys)
        numbers.set_shape(keys.shape)
        return numbers

    def insert(self, keys: Tensor, numbers: Tensor) -> tf.Operation:
        """Sets the row numbers of keys."""
        return self.table.insert(keys, numbers)

    def remove(self, keys: Tensor) -> tf.Operation:
        """Removes keys, which have no row afterwards."""
        return self.table.remove(keys)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Returns all keys, in any order, and their row numbers."""
        keys, numbers = self.table.export()
        keys.set_shape([None])
        numbers.set_shape([None])
        return keys, numbers


class Places(tf.Module):
    """An array of row numbers, for tables of small integers.

    Each table has a place for each integer of its range, and one more place shared by
    all other integers, which have no row. A key is a place.

    Attributes:
      folds: Whether integers must go through `ids.folded` first.
      numbers: Key -> row number.

    Args:
      ranges: Slot of each table -> one more than the largest integer with a row.
    """

    folds = False

    def __init__(self, ranges: Mapping[int, int]) -> None:
        super().__init__(name="places")
        # The largest table starts at 0, so its lists need no addition.
        slots = sorted(ranges, key=lambda slot: -ranges[slot])
        sizes = np.array([ranges[slot] for slot in slots])
        self._others = np.cumsum(sizes + 1) - 1
        self._ranges = np.zeros(max(slots) + 1, np.uint64)
        self._ranges[slots] = sizes
        self._starts = np.zeros(max(slots) + 1, np.int64)
        self._starts[slots] = self._others - sizes
        self.numbers = tf.Variable(
            tf.zeros([self._others[-1] + 1], tf.int32), trainable=False, name="places"
        )

    def keys(self, slots: Tensor, values: Tensor) -> Tensor:
        """Returns the keys of any integers; slots are known when traced."""
        slots = np.asarray(slots)
        # As unsigned numbers, negative integers are beyond all ranges.
        unsigned = tf.bitcast(values, tf.uint64)
        places = tf.bitcast(tf.minimum(unsigned, self._ranges[slots]), tf.int64)
        starts = self._starts[slots]
        return places + starts if starts.any() else places

    def takes(self, keys: np.ndarray) -> np.ndarray:
        """Returns which keys can have a row."""
        return ~np.isin(keys, self._others)

    def find(self, keys: Tensor) -> Tensor:
        """Returns row numbers of keys, 0 for a key without a row."""
        return tf.gather(self.numbers, keys)

    def insert(self, keys: Tensor, numbers: Tensor) -> tf.Operation:
        """Sets the row numbers of keys."""
        numbers = tf.cast(numbers, tf.int32)
        return self.numbers.scatter_nd_update(keys[:, tf.newaxis], numbers)
