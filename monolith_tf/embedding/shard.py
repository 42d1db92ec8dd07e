"""One shard of one group in a step: finding, inserting and updating rows.

Everything that changes the index, and in `exact` mode every update of rows, holds the
shard's lock.
"""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.embedding import row_update
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.shard_rows import Clock
from monolith_tf.embedding.shard_rows import ShardRows
from monolith_tf.embedding.shard_rows import scatter
from monolith_tf.types import Tensor

_ROWS, _INSERTED, _REFUSED, _OVERFLOW, _DROPPED = range(5)


class Shard(ShardRows):
    """The rows of one group whose ids fall to one shard.

    Args:
      group: The layout of the rows.
      device: Where everything lives.
      seed: Of initial values.
      is_exact: Whether updates hold the lock.
      capacity: As in `ShardRows`.
    """

    def __init__(
        self,
        group: Group,
        *,
        device: str,
        seed: int,
        is_exact: bool,
        capacity: int,
    ) -> None:
        super().__init__(group, device=device, capacity=capacity)
        self._seed = seed
        self._is_exact = is_exact

    def find_or_insert(self, ids: Tensor, counts: Tensor, clock: Clock) -> Tensor:
        """Row numbers, after new ids of tables that insert at lookup got their rows.

        Args:
          ids: Distinct feature ids, `[n]`.
          counts: How often each occurs in the batch, `[n]`, or `()`.
          clock: When.
        """
        numbers = self.find(ids)
        inserts = [table.unknown == "insert" for table in self.group.tables]
        if not any(inserts):
            return numbers
        return tf.cond(
            tf.reduce_min(numbers) > 0,
            lambda: numbers,
            lambda: self._locked(
                lambda: self._insert_missing(numbers, ids, counts, clock, inserts),
                after=[numbers],
            ),
        )

    def read(self, numbers: Tensor) -> Tensor:
        """Weights of rows, `[n, group.dim]`."""
        return self.rows.sparse_read(numbers)[:, : self.group.dim]

    def apply_gradients(
        self,
        numbers: Tensor,
        generation: Tensor,
        ids: Tensor,
        counts: Tensor,
        gradients: Tensor,
        clock: Clock,
    ) -> tf.Operation:
        """Updates rows.

        Args:
          numbers: What the lookup of `ids` gave, `[n]`.
          generation: The shard's `generation` at that lookup.
          ids: Distinct feature ids, `[n]`.
          counts: How often each occurred, `[n]`, or `()`.
          gradients: `[n, group.dim]`.
          clock: When.
        """
        inserts = [table.unknown == "zeros" for table in self.group.tables]

        def current_numbers() -> Tensor:
            # Rows freed since the lookup may be another id's by now.
            current = tf.cond(
                tf.equal(generation, self.generation),
                lambda: numbers,
                lambda: self.find(ids),
            )
            if not any(inserts):
                return current
            return tf.cond(
                tf.reduce_min(current) > 0,
                lambda: current,
                lambda: self._insert_missing(current, ids, counts, clock, inserts),
            )

        def update() -> Tensor:
            return self._update(current_numbers(), ids, gradients, clock)

        if self._is_exact:
            return self._locked(update, after=[numbers, gradients])
        if any(inserts):
            current = self._locked(current_numbers, after=[numbers, gradients])
        else:
            current = current_numbers()
        return self._update(current, ids, gradients, clock)

    def _locked(
        self, function: Callable[[], Tensor], after: Sequence[Tensor]
    ) -> Tensor:
        """Runs a function alone; the lock is taken when `after` is there, not before."""
        with tf.control_dependencies(after):
            return self.lock.execute(function)

    def _update(
        self, numbers: Tensor, ids: Tensor, gradients: Tensor, clock: Clock
    ) -> Tensor:
        def with_rows() -> list[Tensor]:
            where = tf.where(numbers > 0)[:, 0]
            without = tf.boolean_mask(ids, tf.equal(numbers, 0))
            with tf.control_dependencies([self.count(_DROPPED, without)]):
                return [tf.gather(value, where) for value in (numbers, ids, gradients)]

        numbers, ids, gradients = tf.cond(
            tf.reduce_min(numbers) > 0,
            lambda: [numbers, ids, gradients],
            with_rows,
        )
        gradients = tf.ensure_shape(gradients, [None, self.group.dim])
        rows = self.rows.sparse_read(numbers)
        new_rows = row_update.updated_rows(self.group, rows, ids, gradients, clock.step)
        writes = [scatter(self.rows, numbers, new_rows)]
        writes += self._stamp(numbers, clock)
        with tf.control_dependencies(writes):
            return tf.size(numbers)

    def _insert_missing(
        self,
        numbers: Tensor,
        ids: Tensor,
        counts: Tensor,
        clock: Clock,
        inserts: list[bool],
    ) -> Tensor:
        """Gives rows to admitted ids that have none; the lock is held.

        Args:
          numbers: Row numbers of `ids`, as found before the lock was taken.
          ids: Distinct feature ids.
          counts: How often each occurs, or `()`.
          clock: When.
          inserts: For each table whether it inserts now.

        Returns:
          The row numbers, 0 where there is still none.
        """
        missing = tf.where(tf.equal(numbers, 0))  # [missing, 1]
        new_ids = tf.gather(ids, missing[:, 0])
        # Another worker may have inserted it while this one waited for the lock.
        found = self.find(new_ids)
        wanted = tf.equal(found, 0)
        if not all(inserts):
            tables = self.group.table_of(new_ids)
            wanted &= tf.gather(tf.constant(inserts), tables)
        places = tf.where(wanted)  # [wanted, 1]
        new_ids = tf.gather(new_ids, places[:, 0])
        if self.admission is not None:
            new_counts = tf.gather(tf.gather(counts, missing[:, 0]), places[:, 0])
            admitted = self.admission.admit(new_ids, new_counts)
            self.count(_REFUSED, tf.boolean_mask(new_ids, ~admitted))
            places = tf.boolean_mask(places, admitted)
            new_ids = tf.boolean_mask(new_ids, admitted)
        new_numbers = self._allot(new_ids, clock)
        places = places[: tf.size(new_numbers)]
        found = tf.tensor_scatter_nd_update(found, places, new_numbers)
        return tf.tensor_scatter_nd_update(numbers, missing, found)

    def _allot(self, ids: Tensor, clock: Clock) -> Tensor:
        """Makes rows for new ids, for as many as there is room; returns their numbers."""
        num_ids = tf.size(ids, tf.int64)
        num_free, next_row = self.num_free.read_value(), self.next_row.read_value()
        reused = tf.minimum(num_ids, num_free)
        fresh = tf.minimum(num_ids - reused, self.capacity - next_row)
        numbers = tf.concat(
            [
                self.free.sparse_read(tf.range(num_free - reused, num_free)),
                tf.range(next_row, next_row + fresh),
            ],
            axis=0,
        )
        kept = ids[: reused + fresh]
        values = row_update.initial_rows(self.group, kept, self._seed)
        writes = [
            scatter(self.rows, numbers, values),
            scatter(self.row_ids, numbers, kept),
            *self._stamp(numbers, clock),
            self.num_free.assign_sub(reused),
            self.next_row.assign_add(fresh),
            self.count(_ROWS, kept),
            self.count(_INSERTED, kept),
            self.count(_OVERFLOW, ids[reused + fresh :]),
        ]
        # Who finds the id finds its values.
        with tf.control_dependencies(writes):
            inserted = self.index.insert(kept, numbers)
        with tf.control_dependencies([inserted]):
            return tf.identity(numbers)

    def _stamp(self, numbers: Tensor, clock: Clock) -> list[tf.Operation]:
        return [
            scatter(stamp, numbers, tf.fill([tf.size(numbers)], now))
            for stamp, now in zip(self.stamps, clock, strict=True)
            if isinstance(stamp, tf.Variable)
        ]
