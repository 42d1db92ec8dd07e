"""Which rows of a served group are in use, and which a new id gets next."""

import tensorflow as tf

from monolith_tf.export import refusals
from monolith_tf.export import update_state
from monolith_tf.types import Tensor

REST_SECS = 10.0
"""How long at least a row rests after it lost its id."""


class RowRoom(tf.Module):
    """Gives rows to new ids: rows that lost their id, and spare ones.

    A request takes no lock. One that found a row's number just before the id was
    removed may still read the row, which must not be another id's by then. So a row
    rests for a while before it is given out again, the one that has rested longest
    first.

    The caller holds the lock of the update.

    Args:
      num_rows: Rows in use, without row 0.
    """

    def __init__(self, num_rows: int) -> None:
        super().__init__(name="row_room")
        self._end = update_state.scalar(num_rows + 1)  # All rows from here are spare.
        # Numbers of the rows that rest, in a ring; made when the first one does.
        self._resting = tf.Variable(
            tf.zeros([0], tf.int32), shape=tf.TensorShape([None]), trainable=False
        )
        # Counts that only rise: places in the ring, but for its length.
        self._first = update_state.scalar(0)
        self._next = update_state.scalar(0)
        self._rested = update_state.scalar(0)  # Rows before this have rested.
        self._noted = update_state.scalar(0)
        self._noted_at = update_state.scalar(0)  # In microseconds.

    def in_use(self) -> Tensor:
        """Returns the number of rows that have an id."""
        return self._end - 1 - (self._next - self._first)

    def take(self, count: Tensor, capacity: Tensor, key: str) -> Tensor:
        """Returns the numbers of rows for new ids, `[count]`, int64.

        They are given out again unless `taken` follows.

        Args:
          count: How many.
          capacity: Rows of the group, with row 0.
          key: Key of the signature, for errors.
        """
        rested, first, end = self._look(), self._first.read_value(), self._end
        again = tf.minimum(count, rested - first)
        spare = count - again
        fits = tf.debugging.Assert(
            end + spare <= capacity,
            [
                f"{key}: {refusals.NO_ROOM}: the request needs spare rows, and fewer "
                "are left. Export a new version. Needed and left:",
                spare,
                capacity - end,
            ],
        )
        with tf.control_dependencies([fits]):
            places = self._places(first, again)
        rows = tf.cast(tf.gather(self._resting.read_value(), places), tf.int64)
        return tf.concat([rows, tf.range(end + 0, end + spare)], axis=0)

    def taken(self, count: Tensor) -> list[tf.Operation]:
        """Notes that the rows of the last `take` are in use."""
        again = tf.minimum(count, self._rested - self._first)
        with tf.control_dependencies([again]):
            return [
                self._first.assign_add(again),
                self._end.assign_add(count - again),
            ]

    def rest(self, numbers: Tensor, capacity: Tensor) -> Tensor:
        """Lets rows rest that lost their id, `[n]`, int64; returns the count of all."""
        resting, start = self._resting, self._next.read_value()
        count = tf.size(numbers, tf.int64)

        def make() -> Tensor:
            made = resting.assign(tf.zeros([capacity], tf.int32))
            with tf.control_dependencies([made]):
                return tf.constant(True)

        is_missing = (count > 0) & tf.equal(self._length(), 0)
        ready = tf.cond(is_missing, make, lambda: is_missing)
        with tf.control_dependencies([ready]):
            places = self._places(start, count)
            written = tf.raw_ops.ResourceScatterUpdate(
                resource=resting.handle,
                indices=places,
                updates=tf.cast(numbers, tf.int32),
            )
        with tf.control_dependencies([written]):
            return tf.identity(self._next.assign(start + count))

    def _look(self) -> Tensor:
        """Returns before which place rows have rested for long enough."""
        now = update_state.now()
        is_time = now - self._noted_at.read_value() >= round(1e6 * REST_SECS)

        def move() -> Tensor:
            with tf.control_dependencies([self._rested.assign(self._noted)]):
                noted = self._noted.assign(self._next)
            with tf.control_dependencies([noted]):
                moved = self._noted_at.assign(now)
            with tf.control_dependencies([moved]):
                return self._rested.read_value()

        return tf.cond(is_time, move, self._rested.read_value)

    def _places(self, start: Tensor, count: Tensor) -> Tensor:
        length = tf.maximum(self._length(), 1)
        return (start + tf.range(count)) % length

    def _length(self) -> Tensor:
        return tf.raw_ops.VariableShape(input=self._resting.handle, out_type=tf.int64)[
            0
        ]
