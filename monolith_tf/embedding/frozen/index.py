"""Where a group's rows are: found by hashing, or by counting."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.ids import HASH_BITS
from monolith_tf.types import Tensor


class HashIndex(tf.Module):
    """Finds the rows of values of any size, and takes new ones at any time.

    A key is a value below its table's slot, or, of a table that is exact, any integer.

    Attributes:
      folds: Whether integers must be put through `ids.folded` first.
      table: Key -> row number.

    Args:
      is_exact: Whether it is of one table that is exact.
    """

    def __init__(self, *, is_exact: bool = False) -> None:
        super().__init__(name="hash_index")
        self.folds = not is_exact
        self.table = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=0
        )

    def keys(self, slots: Any, values: Tensor) -> Tensor:
        """Returns the keys of values of tables of these slots.

        Values are in [0, 2^48), or negative to have no row; of an exact table any.
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
        """Finds where the rows of keys are."""
        return self.table.insert(keys, numbers)


class Places(tf.Module):
    """Finds the rows of small integers without a search.

    Table after table there is a place for each integer of its range, and one more that
    all other integers share, which have no row. A key is a place.

    Attributes:
      folds: Whether integers must be put through `ids.folded` first.
      numbers: Key -> row number.

    Args:
      ranges: Slot of each table -> one more than the largest integer with a row.
    """

    folds = False

    def __init__(self, ranges: Mapping[int, int]) -> None:
        super().__init__(name="places")
        # The largest table starts at 0, which spares its lists an addition.
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

    def keys(self, slots: Any, values: Tensor) -> Tensor:
        """Returns the keys of any integers of tables of these, known, slots."""
        slots = np.asarray(slots)
        # As unsigned numbers, negative ones are beyond all ranges.
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
        """Finds where the rows of keys are."""
        numbers = tf.cast(numbers, tf.int32)
        return self.numbers.scatter_nd_update(keys[:, tf.newaxis], numbers)
