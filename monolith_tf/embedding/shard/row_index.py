"""Where the rows of a shard are, by id."""

import functools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from monolith_tf import connected
from monolith_tf import ids as ids_lib
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.id_table import IdTable
from monolith_tf.types import Tensor

_MAX_PLACES = 1 << 23  # Of 4 bytes each.
_MAX_WIDTH = 1 << 20
_MAX_LOOKED_AT = 1 << 20
_SAMPLE = 64


class RowIndex(Bindable):
    """Row numbers by id; an id that has none has row number 0.

    A hash table knows all ids. Beside it small integers have places of their own, where
    a row number is read without a search:

        place = integer (last slot - first slot + 1) + slot - first slot

    A batch in which every id has a place is looked up there, and any other batch in the
    hash table. When places are added, those that are there stay as they are.

    Args:
      slots: The tables' slots; None where ids are integers as they stand, without slot
        bits and unmixed.
      capacity: Rows that are expected, which bounds the memory for places.
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

        # Hashes of strings, which have no places, show in the first few.
        sample = self._places(ids[:_SAMPLE])
        return tf.cond(self._are_places(sample), by_places, in_table)

    def search(self, ids: Tensor) -> Tensor:
        """Returns the same by the hash table alone, in one operation."""
        return self._table.lookup(ids)

    def insert(self, ids: Tensor, numbers: Tensor) -> tf.Operation:
        """Returns the rows of distinct ids."""
        with tf.control_dependencies([self._place(ids, numbers)]):
            return self._table.insert(ids, numbers)

    def remove(self, ids: Tensor) -> tf.Operation:
        """Forgets ids."""
        with tf.control_dependencies([self._place(ids, tf.zeros_like(ids))]):
            return self._table.remove(ids)

    def clear(self) -> None:
        """Forgets all ids."""
        self.remove(self._table.export()[0])

    def has_use_for(self, capacity: Tensor) -> Tensor:
        """Whether `grow` would add places, and so needs the ids."""
        num_slots = tf.unstack(self._slots.read_value(), num=2)[1]
        return _is_worth_it(
            capacity, _places_for(capacity, num_slots), self._num_places.read_value()
        )

    def grow(self, capacity: Tensor, ids: Tensor) -> Tensor:
        """Adds places; nobody else may change the index meanwhile.

        Args:
          capacity: Rows that are expected from now on, an int64 scalar.
          ids: The id of each row from number 1 on, -1 where it is free; none where
            `has_use_for(capacity)` is false.

        Returns:
          The number of places, when they are there.
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
        return tf.raw_ops.ResourceScatterUpdate(
            resource=self._numbers.handle,
            indices=tf.boolean_mask(places, has_place),
            updates=tf.cast(tf.boolean_mask(numbers, has_place), tf.int32),
        )

    def _places(self, ids: Tensor) -> Tensor:
        """The ids' places; for an id without one, something out of their range."""
        if self._is_raw:
            return ids
        return _places(ids, *tf.unstack(self._slots.read_value(), num=2))

    def _are_places(self, places: Tensor) -> Tensor:
        # As unsigned numbers, negative ones are beyond all places.
        highest = tf.reduce_max(tf.bitcast(places, tf.uint64))
        return highest < tf.bitcast(self._num_places.read_value(), tf.uint64)


def _are_below(values: Tensor, limit: Tensor) -> Tensor:
    """Which values are neither negative nor too large."""
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
    """See `RowIndex.grow`; what it works on is given by handles."""
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
        # Whoever sees the new number of places finds them.
        with tf.control_dependencies([written]):
            written = tf.raw_ops.AssignVariableOp(resource=num_places, value=wanted)
        with tf.control_dependencies([written]):
            return tf.identity(wanted)

    return tf.cond(_is_worth_it(capacity, wanted, now), add, lambda: now)


def _is_worth_it(capacity: Tensor, wanted: Tensor, now: Tensor) -> Tensor:
    # Beyond that it would take too long to look at all ids.
    return (wanted > now) & (capacity <= _MAX_LOOKED_AT)


@connected.cached
def _grow_function(is_raw: bool) -> Any:
    """Traced once for all tables."""
    resource, integer = tf.TensorSpec([], tf.resource), tf.TensorSpec([], tf.int64)
    ids = tf.TensorSpec([None], tf.int64)
    with tf.init_scope():
        return tf.function(
            functools.partial(_grow, is_raw=is_raw),
            input_signature=[resource, resource, integer, ids, integer, integer],
            autograph=False,
            experimental_attributes={"_noinline": True},
        ).get_concrete_function()
