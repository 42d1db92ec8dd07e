"""Which batches were applied, so that one that comes again changes nothing.

A worker that dies leaves some of its batches applied, on some of the shards. Another
worker takes all of them again, and each shard drops what it has.
"""

from collections.abc import Callable

import tensorflow as tf

from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.bindable import Packed
from monolith_tf.embedding.shard.id_table import IdTable
from monolith_tf.embedding.shard.locks import Lock
from monolith_tf.types import Tensor

LOOKUP, PUSH = 0, 1
"""What is done with a batch; each is done once."""


class BatchLog(Bindable):
    """The batches that were applied, since a moment when no step was running.

    A lock must be held to use it. Batches have numbers of at least 0.
    """

    own = ("_done", "_first", "_count", "_born")

    def __init__(self) -> None:
        self._done = IdTable()  # Of a batch's key -> its place, from 1.
        self._first = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._born = IdTable()  # Id -> the place at which it got its row.

    def once(
        self,
        batch: Tensor,
        what: int,
        first: Callable[[], Tensor],
        again: Callable[[], Tensor],
    ) -> Tensor:
        """Calls `first` if a batch is new, else `again`; returns the result.

        Args:
          batch: The batch's number, an int64 scalar.
          what: `LOOKUP` or `PUSH`.
          first: Its result must depend on everything that it does: only then is the
            batch noted.
          again: Changes nothing.
        """
        key = (2 * batch + what)[tf.newaxis]

        def noted() -> Tensor:
            result = first()
            with tf.control_dependencies([result]):
                place = self._count.read_value() + 1
                note = self._done.insert(key, place[tf.newaxis])
            with tf.control_dependencies([note]):
                note = self._count.assign_add(1)
            with tf.control_dependencies([note]):
                return tf.identity(result)

        is_new = tf.equal(self._done.lookup(key)[0], 0)
        is_new &= batch >= self._first.read_value()
        return tf.cond(is_new, noted, again)

    def note_rows(self, ids: Tensor) -> tf.Operation:
        """Notes that ids got their rows; called in `first`."""
        place = self._count.read_value() + 1
        return self._born.insert(ids, tf.fill([tf.size(ids)], place))

    def as_before(self, batch: Tensor, ids: Tensor, numbers: Tensor) -> Tensor:
        """Returns row numbers as a batch's first lookup found them.

        Ids that got their rows later, by other batches, have none: they were not
        admitted then.

        Args:
          batch: The batch's number.
          ids: Its ids, `[n]`.
          numbers: Their row numbers now, `[n]`, 0 for none.
        """
        with tf.control_dependencies([numbers]):
            place = self._done.lookup((2 * batch + LOOKUP)[tf.newaxis])[0]

        def masked() -> Tensor:
            is_later = self._born.lookup(ids) > place
            return tf.where(is_later, tf.zeros_like(numbers), numbers)

        return tf.cond(place > 0, masked, lambda: numbers)

    def forget(self, before: int) -> None:
        """Forgets batches before a number; none of them is new from now on.

        No later batch may have begun.
        """
        keys, _ = self._done.export()
        self._done.remove(tf.boolean_mask(keys, keys < 2 * before))
        self._born.remove(self._born.export()[0])
        self._first.assign(before)

    def clear(self) -> None:
        """Makes all batches new."""
        for table in (self._done, self._born):
            table.remove(table.export()[0])
        self._first.assign(0)


class Claims(Bindable):
    """Gives each batch to the first that asks.

    Args:
      device: Where it is.
    """

    own = ("_lock", "_batches")

    def __init__(self, device: str) -> None:
        self._device = device
        self._lock = Lock(device)
        with tf.device(device):
            self._batches = BatchLog()
            self._packed = Packed(self)

    def claim(self, batch: Tensor) -> Tensor:
        """Returns whether a batch has not been claimed before; call it in a graph."""
        with tf.device(self._device):
            return self._packed.call("claim_here", batch)

    def claim_here(self, batch: Tensor) -> Tensor:
        """As `claim`, on the device."""
        return self._lock.guard(
            lambda: self._batches.once(
                batch, PUSH, lambda: tf.constant(True), lambda: tf.constant(False)
            ),
            [batch],
        )

    def forget(self, before: int) -> None:
        """Forgets batches before a number; nobody gets one of them from now on."""
        self._lock.run(self._batches.forget, before)
