"""The index of a shard: from ids to row numbers."""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf import connected
from monolith_tf import ids as ids_lib
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.id_table import IdTable
from monolith_tf.embedding.shard.scatter import scatter
from monolith_tf.types import Tensor

_MAX_PLACES = 1 << 23  # Of 4 bytes each.
_MAX_WIDTH = 1 << 20
_MAX_LOOKED_AT = 1 << 20
_SAMPLE = 64


class RowIndex(Bindable):
    """Maps ids to row numbers; an id without a row maps to 0.

    A hash table holds all ids. Small integers also have a place in an array, from which
    a row number is read without a search:

        place = integer (last slot - first slot + 1) + slot - first slot

    A batch in which every id has a place is looked up in the array, and any other batch
    in the hash table. Adding places does not move existing ones.

    Args:
      slots: The tables' slots; None if ids are plain integers, not mixed and without
        slot bits.
      capacity: Expected rows, which bound the memory for places.
    """

    own = "_slots", "_num_places", "_numbers", "_table"
    shared = ("_is_raw",)

    def __init__(self, slots: Sequence[int] | None, capacity: int) -> None:
        self._is_raw = slots is None
        first, last = (min(slots), max(slots)) if slots else (0, 0)
        num_slots = last - first + 1
        self._slots = tf.Variable([first, num_slots], dtype=tf.int64, trainable=False)
        num_places = _places_for(tf.constant(capacity, tf.int64), num_slots)
        self._num_places = tf.Variable(num_places, trainable=False)
        self._numbers = tf.Variable(
            tf.zeros([num_places], tf.int32),
            trainable=False,
            shape=[int(num_places)],
        )
        self._table = IdTable()

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

        # Hashes of strings have no places; the first few ids are enough to see them.
        sample = self._places(ids[:_SAMPLE])
        return tf.cond(self._are_places(sample), by_places, in_table)

    def search(self, ids: Tensor) -> Tensor:
        """As `find`, by the hash table alone, in one operation."""
        return self._table.lookup(ids)

    def insert(self, ids: Tensor, numbers: Tensor) -> tf.Operation:
        """Sets the row numbers of distinct ids."""
        with tf.control_dependencies([self._place(ids, numbers)]):
            return self._table.insert(ids, numbers)

    def remove(self, ids: Tensor) -> tf.Operation:
        """Removes ids."""
        with tf.control_dependencies([self._place(ids, tf.zeros_like(ids))]):
            return self._table.remove(ids)

    def clear(self) -> None:
        """Removes all ids."""
        self.remove(self.ids())

    def ids(self) -> Tensor:
        """Returns all ids, in no particular order."""
        return self._table.export()[0]

    def has_use_for(self, capacity: Tensor) -> Tensor:
        """Whether `grow` would add places, and so needs the ids."""
        num_slots = tf.unstack(self._slots.read_value(), num=2)[1]
        return _is_worth_it(
            capacity, _places_for(capacity, num_slots), self._num_places.read_value()
        )

    def grow(self, capacity: Tensor, ids: Tensor) -> Tensor:
        """Adds places; nothing else may change the index meanwhile.

        Args:
          capacity: Rows expected from now on, an int64 scalar.
          ids: The id of each row from number 1 on, -1 for a free row; empty if
            `has_use_for(capacity)` is false.

        Returns:
          The number of places, available once they exist.
        """
        return tf.ensure_shape(
            _grow_function(self._is_raw)(
                self._numbers.handle,
                self._num_places.handle,
                capacity,
                ids,
                *tf.unstack(self._slots.read_value(), num=2),
            ),
            [],
        )

    def _place(self, ids: Tensor, numbers: Tensor) -> tf.Operation:
        places = self._places(ids)
        has_place = _are_below(places, self._num_places.read_value())
        return scatter(
            self._numbers,
            tf.boolean_mask(places, has_place),
            tf.cast(tf.boolean_mask(numbers, has_place), tf.int32),
        )

    def _places(self, ids: Tensor) -> Tensor:
        """Returns the ids' places; out of range for an id without one."""
        if self._is_raw:
            return ids
        return _places(ids, *tf.unstack(self._slots.read_value(), num=2))

    def _are_places(self, places: Tensor) -> Tensor:
        # As unsigned numbers, negative ones exceed all places.
        highest = tf.reduce_max(tf.bitcast(places, tf.uint64))
        return highest < tf.bitcast(self._num_places.read_value(), tf.uint64)


def _are_below(values: Tensor, limit: Tensor) -> Tensor:
    """Returns which values are in `[0, limit)`."""
    return tf.bitcast(values, tf.uint64) < tf.bitcast(limit, tf.uint64)


def _places(ids: Tensor, first_slot: Any, num_slots: Tensor) -> Tensor:
    integers = ids_lib.to_integers(ids_lib.hash_of(ids))
    slots = ids_lib.slot_of(ids) - first_slot
    return tf.where(_are_below(slots, num_slots), integers * num_slots + slots, -1)


def _places_for(capacity: Tensor, num_slots: Any) -> Tensor:
    # Twice the rows, since some tables have more of them than others.
    room = tf.minimum(2 * capacity, _MAX_PLACES) // num_slots
    return num_slots * tf.clip_by_value(room, 1, _MAX_WIDTH)


def _grow(
    numbers: Tensor,
    num_places: Tensor,
    capacity: Tensor,
    ids: Tensor,
    first_slot: Tensor,
    num_slots: Tensor,
    *,
    is_raw: bool,
) -> Tensor:
    """See `RowIndex.grow`; receives handles instead of variables."""
    wanted = _places_for(capacity, num_slots)
    now = tf.raw_ops.ReadVariableOp(resource=num_places, dtype=tf.int64)

    def add() -> Tensor:
        places = ids if is_raw else _places(ids, first_slot, num_slots)
        kept = _are_below(places, wanted)
        if not is_raw:
            kept &= ids >= 0
        values = tf.tensor_scatter_nd_update(
            tf.zeros(wanted[tf.newaxis], tf.int32),
            tf.boolean_mask(places, kept)[:, tf.newaxis],
            tf.boolean_mask(tf.range(1, tf.size(ids) + 1), kept),
        )
        written = tf.raw_ops.AssignVariableOp(resource=numbers, value=values)
        # Readers take no lock: one that sees the new number must find the places.
        with tf.control_dependencies([written]):
            written = tf.raw_ops.AssignVariableOp(resource=num_places, value=wanted)
        with tf.control_dependencies([written]):
            return tf.identity(wanted)

    return tf.cond(_is_worth_it(capacity, wanted, now), add, lambda: now)


def _is_worth_it(capacity: Tensor, wanted: Tensor, now: Tensor) -> Tensor:
    # Looking at all ids of a larger table would take too long.
    return (wanted > now) & (capacity <= _MAX_LOOKED_AT)


@connected.cached
def _grow_function(is_raw: bool) -> Any:
    """Returns `_grow`, traced once for all tables."""
    resource, integer = tf.TensorSpec([], tf.resource), tf.TensorSpec([], tf.int64)
    ids = tf.TensorSpec([None], tf.int64)
    with tf.init_scope():
        return tf.function(
            functools.partial(_grow, is_raw=is_raw),
            input_signature=[resource, resource, integer, ids, integer, integer],
            autograph=False,
            experimental_attributes={"_noinline": True},
        ).get_concrete_function()
