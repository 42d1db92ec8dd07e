"""What a step does with one shard: finding, inserting and updating rows.

Every change of the index holds the shard's lock; in `exact` mode so does every update
of rows. A batch with a number inserts and updates once, however often it comes.
"""

from collections.abc import Callable
from typing import Any
from typing import ClassVar
from typing import NamedTuple

import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf.embedding.lookup.pulled import PulledShard
from monolith_tf.embedding.shard import batch_log
from monolith_tf.embedding.shard import row_update
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.bindable import Packed
from monolith_tf.embedding.shard.clock import Clock
from monolith_tf.embedding.shard.shard import Shard
from monolith_tf.types import Tensor


class Found(NamedTuple):
    """The result of a lookup: three parts of a `PulledShard`, and weights."""

    numbers: Tensor
    generation: Tensor
    version: Tensor
    weights: Tensor


class ShardStep(Bindable):
    """Finds, inserts and updates rows of a shard.

    Attributes:
      shard: The shard.
      packed: Calls the methods in a graph, on the shard's device.
      reuses_weights: Whether a push may use the weights that the lookup read.

    Args:
      shard: The shard.
      is_exact: Whether updates hold the lock.
    """

    own: ClassVar[tuple[str, ...]] = ("shard",)
    shared: ClassVar[tuple[str, ...]] = ("_is_exact",)

    def __init__(self, shard: Shard, *, is_exact: bool) -> None:
        self.shard = shard
        self._is_exact = is_exact
        # A push may reuse the weights that the lookup read if the version is the same.
        # The version does not cover rows inserted at a push, or updates that race.
        self.reuses_weights = is_exact and not shard.group.inserts_at_push
        with tf.device(shard.device):
            self.packed = Packed(self)

    # `packed.call` calls the methods below. Each returns only what all its callers use:
    # TensorFlow would make another function for a caller that ignores an output.

    def read(self, ids: Tensor) -> Tensor:
        """Returns weights, `[n, group.dim]`; zeros for an id without a row."""
        return self.shard.rows.read("weights", self.shard.index.find(ids))

    def lookup(self, batch: PulledShard, clock: Clock | tuple[()]) -> Found:
        """Finds rows.

        Args:
          batch: Distinct ids and their counts.
          clock: The current step and time; `()` if nothing is to be inserted.
        """
        shard = self.shard
        inserts = [table.unknown == "insert" for table in shard.group.tables]
        # These counts show later whether the row numbers still hold. They are read
        # first: a change in between costs a second lookup, and never goes unnoticed.
        changes = shard.changes.read_value()
        generation = shard.generation.read_value()
        with tf.control_dependencies([changes, generation]):
            numbers = shard.index.find(batch.ids)
        if isinstance(clock, Clock) and any(inserts):
            found = batch._replace(numbers=numbers)
            numbers = tf.cond(
                tf.reduce_min(numbers) > 0,
                lambda: numbers,
                lambda: shard.lock.guard(
                    lambda: self._once(
                        clock,
                        batch_log.LOOKUP,
                        lambda: self._insert_missing(found, changes, clock, inserts),
                        # The first time has inserted, and counted, what it could.
                        lambda: shard.index.search(batch.ids),
                    ),
                    after=[numbers],
                ),
            )
            if shard.admission is not None and not isinstance(clock.batch, tuple):
                numbers = shard.batches.as_before(clock.batch, batch.ids, numbers)
        version = shard.version.read_value()
        with tf.control_dependencies([version]):
            weights = shard.rows.read("weights", numbers)
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
          The number of updated rows, available after the update; 0 if the batch came
          before.
        """
        inserts = [table.unknown == "zeros" for table in self.shard.group.tables]
        after = [batch.numbers, gradients]

        def current() -> Tensor:
            return self._current_numbers(batch, clock, inserts)

        def nothing() -> Tensor:
            return tf.constant(0)

        if self._is_exact:
            return self.shard.lock.guard(
                lambda: self._once(
                    clock,
                    batch_log.PUSH,
                    lambda: self._update(
                        batch, current(), gradients, clock, rate_scale
                    ),
                    nothing,
                ),
                after,
            )

        def update() -> Tensor:
            # Only insertions hold the lock, and updates of rows may race.
            guarded = any(inserts)
            numbers = self.shard.lock.guard(current, after) if guarded else current()
            return self._update(batch, numbers, gradients, clock, rate_scale)

        if isinstance(clock.batch, tuple):
            return update()
        is_first = self.shard.lock.guard(
            lambda: self._once(
                clock,
                batch_log.PUSH,
                lambda: tf.constant(True),
                lambda: tf.constant(False),
            ),
            after,
        )
        return tf.cond(is_first, update, nothing)

    def _once(
        self,
        clock: Clock,
        what: int,
        first: Callable[[], Tensor],
        again: Callable[[], Tensor],
    ) -> Tensor:
        """Returns `first()`, or `again()` for a batch that came before.

        The caller holds the lock.
        """
        if isinstance(clock.batch, tuple):
            return first()
        return self.shard.batches.once(clock.batch, what, first, again)

    def _current_numbers(
        self, batch: PulledShard, clock: Clock, inserts: list[bool]
    ) -> Tensor:
        """Returns the current row numbers, after new ids got their rows."""
        # A row freed since the lookup may belong to another id by now.
        numbers = tf.cond(
            tf.equal(batch.generation, self.shard.generation.read_value()),
            lambda: batch.numbers,
            lambda: self.shard.index.search(batch.ids),
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
        shard = self.shard
        if isinstance(batch.weights, tuple):
            weights = shard.rows.read("weights", numbers)
        else:
            weights = tf.cond(
                tf.equal(batch.version, shard.version.read_value()),
                lambda: batch.weights,
                lambda: shard.rows.read("weights", numbers),
            )

        def with_rows() -> list[Tensor]:
            is_finite = tf.reduce_all(tf.math.is_finite(gradients), axis=1)
            is_used = (numbers > 0) & is_finite
            where = tf.where(is_used)[:, 0]
            shard.count("dropped", tf.boolean_mask(batch.ids, ~is_used))
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
        if shard.group.updates_all_rows:
            numbers, ids, gradients, weights = self._all_rows(numbers, gradients)
        state = shard.rows.read("state", numbers) if shard.group.has_state else None
        weights, state = row_update.updated_rows(
            shard.group,
            tf.ensure_shape(weights, [None, None]),
            state,
            ids,
            gradients,
            clock.step,
            None if isinstance(rate_scale, tuple) else rate_scale,
        )
        written = shard.write(numbers, weights, state, clock, is_locked=self._is_exact)
        # A push that sees the new version must see the new weights.
        with tf.control_dependencies([written]):
            written = shard.version.assign_add(1)
        with tf.control_dependencies([written]):
            return tf.size(numbers)

    def _all_rows(self, numbers: Tensor, gradients: Tensor) -> list[Tensor]:
        """Returns numbers, ids, gradients and weights of all rows, freed or not."""
        shard = self.shard
        end = shard.next_row.read_value()
        shape = [end, tf.shape(gradients, tf.int64)[1]]
        gradients = tf.scatter_nd(numbers[:, tf.newaxis], gradients, shape)[1:]
        numbers = tf.range(1, end)
        ids, weights = (shard.rows.read(name, numbers) for name in ("ids", "weights"))
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
        shard = self.shard
        missing = tf.where(tf.equal(batch.numbers, 0))  # [missing, 1]
        new_ids = tf.gather(batch.ids, missing[:, 0])
        # Another worker may have inserted them while this one waited for the lock.
        found = tf.cond(
            tf.equal(changes, shard.changes.read_value()),
            lambda: tf.zeros_like(new_ids),
            lambda: shard.index.search(new_ids),
        )
        wanted = tf.equal(found, 0)
        if not all(inserts):
            tables = shard.group.table_of(new_ids)
            wanted &= tf.gather(tf.constant(inserts), tables)
        places = tf.where(wanted)  # [wanted, 1]
        new_ids = self._checked(tf.gather(new_ids, places[:, 0]))
        if shard.admission is not None:
            new_counts = tf.gather(tf.gather(batch.counts, missing[:, 0]), places[:, 0])
            tables = shard.group.table_of(new_ids)
            admitted = shard.admission.admit(
                new_ids, tables, new_counts, clock.step, shard.period.read_value()
            )
            counted = shard.count("refused", tf.boolean_mask(new_ids, ~admitted))
            places = tf.boolean_mask(places, admitted)
            with tf.control_dependencies([counted]):
                new_ids = tf.boolean_mask(new_ids, admitted)
        new_numbers = shard.insert(new_ids, clock)
        if shard.admission is not None and not isinstance(clock.batch, tuple):
            noted = shard.batches.note_rows(new_ids[: tf.size(new_numbers)])
            with tf.control_dependencies([noted]):
                new_numbers = tf.identity(new_numbers)
        # Stitched in two levels: `places` index the missing ids, `missing` the batch.
        # At the limit of rows, only the first of the wanted ids get one.
        places = places[: tf.size(new_numbers)]
        found = tf.tensor_scatter_nd_update(found, places, new_numbers)
        return tf.tensor_scatter_nd_update(batch.numbers, missing, found)

    def _checked(self, ids: Tensor) -> Tensor:
        """Returns new ids after checking their slots: rows of others would be lost."""
        group = self.shard.group
        if group.is_exact:
            return ids
        is_right = tf.equal(
            ids_lib.slot_of(ids),
            tf.gather(group.slots(), group.table_of(ids)),
        )
        message = (
            "Ids must have the slot of their table in their upper 16 bits, where "
            "`ids.with_slot` puts it."
        )
        wrong = tf.reduce_max(tf.where(is_right, tf.int64.min, ids))
        check = tf.raw_ops.Assert(
            condition=tf.reduce_all(is_right),
            data=[message, self.shard.facts["names"].read_value(), "Received:", wrong],
        )
        with tf.control_dependencies([check]):
            return tf.identity(ids)
