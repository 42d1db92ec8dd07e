"""One shard of one group in a step: finding, inserting and updating rows.

Every change of the index holds the shard's lock; in `exact` mode so does every update
of rows.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.lookup.pulled import PulledShard
from monolith_tf.embedding.shard import row_update
from monolith_tf.embedding.shard.shard_rows import Clock
from monolith_tf.embedding.shard.shard_rows import ShardRows
from monolith_tf.types import Tensor


class Found(NamedTuple):
    """The result of a lookup: three parts of a `PulledShard`, and weights."""

    numbers: Tensor
    generation: Tensor
    version: Tensor
    weights: Tensor


_ROWS, _INSERTED, _REFUSED, _OVERFLOW, _DROPPED = range(5)


class Shard(ShardRows):
    """The rows of one group whose ids fall to one shard.

    Args:
      group: The layout of the rows.
      device: Device of all variables.
      seed: As in `ShardRows`.
      is_exact: Whether updates hold the lock.
      capacity: As in `ShardRows`.
      is_raw: As in `ShardRows`.
    """

    shared: ClassVar[tuple[str, ...]] = *ShardRows.shared, "_is_exact"

    def __init__(
        self,
        group: Group,
        *,
        device: str,
        seed: int,
        is_exact: bool,
        capacity: int,
        is_raw: bool = False,
    ) -> None:
        self._is_exact = is_exact
        super().__init__(
            group, device=device, capacity=capacity, seed=seed, is_raw=is_raw
        )
        # A push may reuse the weights that the lookup read if the version is the same.
        # The version does not cover rows inserted at a push, or updates that race.
        self.reuses_weights = is_exact and not group.inserts_at_push

    # `packed.call` calls the methods below. Each returns only what all its callers use:
    # TensorFlow would make another function for a caller that ignores an output.

    def read(self, ids: Tensor) -> Tensor:
        """Returns weights, `[n, group.dim]`; zeros for an id without a row."""
        return self.rows.read("weights", self.index.find(ids))

    def lookup(self, batch: PulledShard, clock: Clock | tuple[()]) -> Found:
        """Finds rows.

        Args:
          batch: Distinct ids and their counts.
          clock: The current step and time; `()` if nothing is to be inserted.
        """
        inserts = [table.unknown == "insert" for table in self.group.tables]
        # These counts show later whether the row numbers still hold. They are read
        # first: a change in between costs a second lookup, and never goes unnoticed.
        changes = self.changes.read_value()
        generation = self.generation.read_value()
        with tf.control_dependencies([changes, generation]):
            numbers = self.index.find(batch.ids)
        if isinstance(clock, Clock) and any(inserts):
            found = batch._replace(numbers=numbers)
            numbers = tf.cond(
                tf.reduce_min(numbers) > 0,
                lambda: numbers,
                lambda: self._locked(
                    lambda: self._insert_missing(found, changes, clock, inserts),
                    after=[numbers],
                ),
            )
        version = self.version.read_value()
        with tf.control_dependencies([version]):
            weights = self.rows.read("weights", numbers)
        # A push depends on the numbers. Returning them only after the weights are read
        # keeps the same step's update from overtaking the read.
        with tf.control_dependencies([weights]):
            numbers = tf.identity(numbers)
        return Found(numbers, generation, version, weights)

    def push(self, *arguments: Any) -> None:
        """As `apply_gradients`, but returns nothing."""
        self.apply_gradients(*arguments)

    def apply_gradients(
        self,
        batch: PulledShard,
        gradients: Tensor,
        clock: Clock,
        rate_scale: Tensor | tuple[()] = (),
    ) -> Tensor:
        """Updates rows.

        Args:
          batch: The result of the lookup.
          gradients: `[n, group.dim]`.
          clock: The current step and time.
          rate_scale: Factor for all learning rates; `()` means 1.

        Returns:
          The number of updated rows, available after the update.
        """
        inserts = [table.unknown == "zeros" for table in self.group.tables]
        after = [batch.numbers, gradients]

        def current() -> Tensor:
            return self._current_numbers(batch, clock, inserts)

        if self._is_exact:
            return self._locked(
                lambda: self._update(batch, current(), gradients, clock, rate_scale),
                after,
            )
        # Otherwise only insertions hold the lock, and updates of rows may race.
        numbers = self._locked(current, after) if any(inserts) else current()
        return self._update(batch, numbers, gradients, clock, rate_scale)

    def _locked(
        self, function: Callable[[], Tensor], after: Sequence[Tensor]
    ) -> Tensor:
        """Runs a function under the lock, which is taken after `after` is available.

        Taken earlier, the lock would make others wait for this step's inputs. It is
        released when the result is available, so the result must depend on everything
        that the function does.
        """
        with tf.control_dependencies(after):
            lock = tf.raw_ops.MutexLock(mutex=self.mutex)
        with tf.control_dependencies([lock]):
            result = function()
        with tf.control_dependencies([result]):
            released = tf.raw_ops.ConsumeMutexLock(mutex_lock=lock)
        with tf.control_dependencies([released]):
            return tf.identity(result)

    def _current_numbers(
        self, batch: PulledShard, clock: Clock, inserts: list[bool]
    ) -> Tensor:
        """Returns the current row numbers, after new ids got their rows."""
        # A row freed since the lookup may belong to another id by now.
        numbers = tf.cond(
            tf.equal(batch.generation, self.generation.read_value()),
            lambda: batch.numbers,
            lambda: self.index.search(batch.ids),
        )
        if not any(inserts):
            return numbers
        found = batch._replace(numbers=numbers)
        never = tf.constant(-1, tf.int64)
        return tf.cond(
            tf.reduce_min(numbers) > 0,
            lambda: numbers,
            lambda: self._insert_missing(found, never, clock, inserts),
        )

    def _update(
        self,
        batch: PulledShard,
        numbers: Tensor,
        gradients: Tensor,
        clock: Clock,
        rate_scale: Tensor | tuple[()],
    ) -> Tensor:
        if isinstance(batch.weights, tuple):
            weights = self.rows.read("weights", numbers)
        else:
            weights = tf.cond(
                tf.equal(batch.version, self.version.read_value()),
                lambda: batch.weights,
                lambda: self.rows.read("weights", numbers),
            )

        def with_rows() -> list[Tensor]:
            is_finite = tf.reduce_all(tf.math.is_finite(gradients), axis=1)
            is_used = (numbers > 0) & is_finite
            where = tf.where(is_used)[:, 0]
            self.count(_DROPPED, tf.boolean_mask(batch.ids, ~is_used))
            values = numbers, batch.ids, gradients, weights
            return [tf.gather(value, where) for value in values]

        # A value that is not finite makes the sum so. That is rare, and so are missing
        # rows: only then are rows filtered.
        are_finite = tf.math.is_finite(tf.reduce_sum(gradients))
        numbers, ids, gradients, weights = tf.cond(
            (tf.reduce_min(numbers) > 0) & are_finite,
            lambda: [numbers, batch.ids, gradients, weights],
            with_rows,
        )
        gradients = tf.ensure_shape(gradients, [None, None])
        if self.group.updates_all_rows:
            numbers, ids, gradients, weights = self._all_rows(numbers, gradients)
        state = self.rows.read("state", numbers) if self.group.has_state else None
        weights, state = row_update.updated_rows(
            self.group,
            tf.ensure_shape(weights, [None, None]),
            state,
            ids,
            gradients,
            clock.step,
            None if isinstance(rate_scale, tuple) else rate_scale,
        )
        written = self.write(numbers, weights, state, self._stamps(numbers, clock))
        # A push that sees the new version must see the new weights.
        with tf.control_dependencies([written]):
            written = self.version.assign_add(1)
        with tf.control_dependencies([written]):
            return tf.size(numbers)

    def _all_rows(self, numbers: Tensor, gradients: Tensor) -> list[Tensor]:
        """Returns numbers, ids, gradients and weights of all rows, freed or not."""
        end = self.next_row.read_value()
        shape = [end, tf.shape(gradients, tf.int64)[1]]
        gradients = tf.scatter_nd(numbers[:, tf.newaxis], gradients, shape)[1:]
        numbers = tf.range(1, end)
        ids, weights = (self.rows.read(name, numbers) for name in ("ids", "weights"))
        return [numbers, ids, gradients, weights]

    def _insert_missing(
        self, batch: PulledShard, changes: Tensor, clock: Clock, inserts: list[bool]
    ) -> Tensor:
        """Gives rows to admitted ids that have none; the caller holds the lock.

        Args:
          batch: Ids, and the row numbers found before the lock was taken.
          changes: `changes` as read before those numbers.
          clock: The current step and time.
          inserts: Whether each table inserts now.

        Returns:
          The row numbers, 0 for ids that still have no row.
        """
        missing = tf.where(tf.equal(batch.numbers, 0))  # [missing, 1]
        new_ids = tf.gather(batch.ids, missing[:, 0])
        # Another worker may have inserted them while this one waited for the lock.
        found = tf.cond(
            tf.equal(changes, self.changes.read_value()),
            lambda: tf.zeros_like(new_ids),
            lambda: self.index.search(new_ids),
        )
        wanted = tf.equal(found, 0)
        if not all(inserts):
            tables = self.group.table_of(new_ids)
            wanted &= tf.gather(tf.constant(inserts), tables)
        places = tf.where(wanted)  # [wanted, 1]
        new_ids = self._checked(tf.gather(new_ids, places[:, 0]))
        if self.admission is not None:
            new_counts = tf.gather(tf.gather(batch.counts, missing[:, 0]), places[:, 0])
            tables = self.group.table_of(new_ids)
            admitted = self.admission.admit(new_ids, tables, new_counts, clock.step)
            counted = self.count(_REFUSED, tf.boolean_mask(new_ids, ~admitted))
            places = tf.boolean_mask(places, admitted)
            with tf.control_dependencies([counted]):
                new_ids = tf.boolean_mask(new_ids, admitted)
        new_numbers = self._allot(new_ids, clock)
        # Stitched in two levels: `places` index the missing ids, `missing` the batch.
        # At the limit of rows, only the first of the wanted ids get one.
        places = places[: tf.size(new_numbers)]
        found = tf.tensor_scatter_nd_update(found, places, new_numbers)
        return tf.tensor_scatter_nd_update(batch.numbers, missing, found)

    def _checked(self, ids: Tensor) -> Tensor:
        """Returns new ids after checking their slots: rows of others would be lost."""
        if self._is_raw:
            return ids
        is_right = tf.equal(
            ids_lib.slot_of(ids),
            tf.gather(self.group.slots(), self.group.table_of(ids)),
        )
        message = (
            "Ids must have the slot of their table in their upper 16 bits, where "
            "`ids.with_slot` puts it."
        )
        wrong = tf.reduce_max(tf.where(is_right, tf.int64.min, ids))
        check = tf.raw_ops.Assert(
            condition=tf.reduce_all(is_right),
            data=[message, self.facts["names"].read_value(), "Received:", wrong],
        )
        with tf.control_dependencies([check]):
            return tf.identity(ids)

    def _allot(self, ids: Tensor, clock: Clock) -> Tensor:
        """Makes rows for new ids while there is room, and returns their numbers."""
        num_ids = tf.size(ids, tf.int64)
        num_free, next_row = self.num_free.read_value(), self.next_row.read_value()
        reused = tf.minimum(num_ids, num_free)
        fresh = num_ids - reused
        capacity = self.capacity.read_value()
        capacity = tf.cond(
            next_row + fresh > capacity,
            lambda: self.grow(next_row + fresh),
            lambda: capacity,
        )
        fresh = tf.minimum(fresh, capacity - next_row)
        numbers = tf.concat(
            [
                self.rows.read(
                    "free", tf.range(num_free - reused, num_free), is_often=False
                ),
                tf.range(next_row, next_row + fresh),
            ],
            axis=0,
        )
        kept = ids[: reused + fresh]
        weights, state = row_update.initial_rows(
            self.group, kept, self.facts["keys"].read_value()
        )
        others = {"ids": kept, **self._stamps(numbers, clock)}
        # Rows are counted only once written, so that a step that fails takes none.
        written = self.write(numbers, weights, state, others, is_often=False)
        with tf.control_dependencies([written]):
            counted = [
                self.num_free.assign_sub(reused),
                self.next_row.assign_add(fresh),
                self.count(_ROWS, kept),
                self.count(_INSERTED, kept),
                self.count(_OVERFLOW, ids[reused + fresh :]),
            ]
        # Lookups take no lock. Values are written before the index has the id, and
        # `changes` grows after that: a lookup that finds the id finds its values, and
        # one that sees the new count finds the id.
        with tf.control_dependencies(counted):
            inserted = self.index.insert(kept, numbers)
        with tf.control_dependencies([inserted]):
            changed = self.changes.assign_add(1)
        with tf.control_dependencies([changed]):
            return tf.identity(numbers)

    def _stamps(self, numbers: Tensor, clock: Clock) -> dict[str, Tensor]:
        return {
            name: tf.fill([tf.size(numbers)], getattr(clock, name))
            for name in self.stamp_names()
        }
