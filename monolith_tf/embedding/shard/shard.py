"""One shard of one group: its index, its rows and their bookkeeping."""

import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.shard import admission
from monolith_tf.embedding.shard import expiry
from monolith_tf.embedding.shard import group_kind
from monolith_tf.embedding.shard import row_update
from monolith_tf.embedding.shard.batch_log import BatchLog
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.clock import Clock
from monolith_tf.embedding.shard.locks import Lock
from monolith_tf.embedding.shard.removals import Removals
from monolith_tf.embedding.shard.row_blocks import MAX_ROWS
from monolith_tf.embedding.shard.row_blocks import Column
from monolith_tf.embedding.shard.row_blocks import RowBlocks
from monolith_tf.embedding.shard.row_index import RowIndex
from monolith_tf.types import Tensor

COUNTERS = ("rows", "inserted", "refused", "overflow", "dropped", "expired", "evicted")
"""What a shard counts for each of its tables, as `EmbeddingStore` describes it."""

_LOADED_ROWS = 1 << 16  # Per hold of the lock, so that steps do not wait long.


class Shard(Bindable):
    """The rows of one group whose ids fall to one shard, with index and bookkeeping.

    Row 0 belongs to no id and stays zero. An id without a row has row number 0, so rows
    are gathered without checking whether they exist.

    One lock guards all of it: changes of the index, the rows or the bookkeeping hold
    it, except updates by a `ShardStep` that is not exact. Rows may be read without it.

    Not tracked by `tf.Module`: a checkpoint writes the rows in use, in chunks, and not
    the variables.

    Args:
      group: The layout of the rows.
      device: Device of all variables.
      capacity: Initial capacity in rows; it grows when needed. Memory is taken only
        when rows are written.
      seed: Seed of initial values and of probabilistic admission.
    """

    own = (
        "facts",
        "lock",
        "index",
        "rows",
        "admission",
        "batches",
        "next_row",
        "num_free",
        "generation",
        "changes",
        "version",
        "period",
        "counters",
    )
    shared: ClassVar[tuple[str, ...]] = ("kind",)

    def __init__(self, group: Group, *, device: str, capacity: int, seed: int) -> None:
        slots = None if group.is_exact else group.slots().tolist()
        self.group = group
        self.kind = group_kind.kind_of(group)
        self.device = device
        self.lock = Lock(device)
        with tf.device(device):
            self.facts = group_kind.facts_of(group, seed)
            self.index = RowIndex(slots, capacity)
            self.next_row = _scalar(1)
            self.num_free = _scalar(0)
            self.generation = _scalar(0)  # Grows when rows are freed.
            self.changes = _scalar(0)  # Grows when the index changes.
            self.version = _scalar(0)  # Grows when existing rows change.
            self.period = _scalar(1)  # Grows at each `begin_period`.
            self.counters = tf.Variable(
                tf.zeros([len(group.tables), len(COUNTERS)], tf.int64), trainable=False
            )
            self.admission = admission.make(group, seed)
            self.batches = BatchLog()
            self.rows = RowBlocks(self._columns(), capacity)
            self.rows.write(
                tf.constant([0], tf.int64),
                {"weights": tf.zeros([1, group.dim]), "ids": [-1]},
            )
        self.ages = expiry.Ages(group)
        self.next_expiry = self.ages.never_looked()
        self.looked_at_secs = -math.inf  # Time of the last expiry check.
        self.removals = Removals()
        self.cleared_in = 0  # The period in which all rows were last removed.
        self.is_cramped = False  # Whether memory for more rows was refused.

    def on_bound(self) -> None:
        """See base class."""
        self.group = group_kind.BoundGroup.of(self.kind, self.facts)

    def ranges(self, size: int) -> Iterator[tuple[int, int]]:
        """Yields starts and ends of ranges of at most `size` row numbers."""
        end = int(self.next_row)
        for start in range(1, end, size):
            yield start, min(start + size, end)

    def in_use(
        self, start: int, end: int
    ) -> tuple[Tensor, np.ndarray, dict[str, np.ndarray]]:
        """Returns numbers, ids and stamps of the rows in use in `[start, end)`."""
        with tf.device(self.device):
            numbers = tf.range(start, end, dtype=tf.int64)
            ids = self.rows.read("ids", numbers).numpy()
            stamps = {
                name: self.rows.read(name, numbers).numpy()
                for name in self.group.stamps
            }
            used = ids >= 0
            if self.group.is_exact:  # Raw ids may be negative, as a freed row's is.
                used |= (self.index.search(ids) == numbers).numpy()
            if used.all():
                return numbers, ids, stamps
            stamps = {name: stamp[used] for name, stamp in stamps.items()}
            return numbers[used], ids[used], stamps

    def load(self, chunk: Chunk) -> None:
        """Writes rows, new ones or over old ones, with every stamp that is kept.

        Raises:
          TableFullError: If there is no room for them.
        """
        for start in range(0, len(chunk.ids), _LOADED_ROWS):
            piece = chunk.take(slice(start, start + _LOADED_ROWS))
            self.lock.run(self._load, piece)
        self.next_expiry = self.ages.never_looked()

    def _load(self, chunk: Chunk) -> None:
        ids = tf.constant(chunk.ids, tf.int64)
        numbers = self.index.search(ids).numpy()
        is_new = numbers == 0
        start = int(self.next_row)
        end = start + int(is_new.sum())
        if end > int(self.rows.capacity) and int(self.grow(tf.constant(end))) < end:
            raise expiry.TableFullError(
                f"A shard holds at most {MAX_ROWS} rows. Received: {end - 1} ids of "
                f"{[table.name for table in self.group.tables]} on {self.device}. Use "
                "more shards."
            )
        numbers[is_new] = np.arange(start, end)
        values = {"weights": chunk.weights, "ids": chunk.ids}
        values |= {name: chunk.stamps[name] for name in self.group.stamps}
        if self.group.state_dim:
            values["state"] = chunk.state
        if self.group.tracks_updates:
            values["changed"] = np.full(len(numbers), int(self.period))
        self.rows.write(tf.constant(numbers), values)
        self.next_row.assign(end)
        for counter in ("rows", "inserted"):
            self.count(counter, ids[is_new])
        self.index.insert(ids[is_new], tf.constant(numbers[is_new]))
        self._bump()

    def remove(self, ids: np.ndarray, counter: str, step: int | None) -> None:
        """Frees the rows of ids for reuse; the caller holds the lock.

        Args:
          ids: Distinct ids; those without a row are skipped.
          counter: The counter to which they are added.
          step: The global step, which is recorded if updates are tracked.
        """
        numbers = self.index.search(tf.constant(ids, tf.int64)).numpy()
        ids, numbers = ids[numbers > 0], numbers[numbers > 0]
        if not len(ids):
            return
        if self.group.tracks_updates and step is not None:
            self.removals.add(int(self.period), step, ids)
        keys = tf.constant(ids, tf.int64)
        self.index.remove(keys)
        start = self.num_free.read_value()
        self.rows.write(tf.constant(numbers), {"ids": np.full(len(ids), -1)})
        self.rows.write(tf.range(start, start + len(ids)), {"free": numbers})
        self.num_free.assign_add(len(ids))
        self._bump()
        self.count(counter, keys)
        self.count("rows", keys, sign=-1)

    def clear(self) -> None:
        """Removes all ids, and resets counts and counters."""
        self.lock.run(self._clear)

    def _clear(self) -> None:
        if self.group.tracks_updates:
            self.cleared_in = int(self.period)
            self.removals.add_all(self.cleared_in, self.index.ids().numpy())
        self.index.clear()
        self.next_row.assign(1)
        self.num_free.assign(0)
        self._bump()
        self.counters.assign(tf.zeros_like(self.counters))
        self.next_expiry = self.ages.never_looked()
        self.batches.clear()
        if self.admission is not None:
            self.admission.clear()

    def begin_period(self, oldest: int | None) -> tuple[int, int]:
        """Begins a new period: what changes from now on is stamped with it.

        Args:
          oldest: The oldest period since which removals will be asked for; None is the
            new one.

        Returns:
          The period, and the last step of removals that are unknown from now on, or -1.
        """

        def begin() -> tuple[int, int]:
            self.period.assign_add(1)
            period = int(self.period)
            kept = period if oldest is None else oldest
            return period, self.removals.forget(kept, has_marks=True)

        return self.lock.run(begin)

    def forget_batches(self, before: int) -> None:
        """Drops batches before a number from now on, even if they were not applied."""
        self.lock.run(self.batches.forget, before)

    def reserve(self, num_rows: int) -> None:
        """Makes room for `num_rows` row numbers; steps may run meanwhile.

        Raises:
          tf.errors.ResourceExhaustedError: If there is no memory; nothing changes.
        """
        self.lock.run(self.grow, tf.constant(num_rows, tf.int64))

    def grow(self, num_rows: Tensor) -> Tensor:
        """Makes room for `num_rows` row numbers or more; the caller holds the lock.

        Returns:
          The new capacity, less than `num_rows` only at `MAX_ROWS`.
        """
        next_row = self.next_row.read_value()
        used = dict.fromkeys(self.rows.names(), next_row)
        used["free"] = self.num_free.read_value()
        capacity = self.rows.grow(num_rows, used)
        with tf.control_dependencies([capacity]):
            # Ids are read only if the index uses them: in a large table it takes long.
            end = tf.where(self.index.has_use_for(capacity), next_row, 1)
            ids = self.rows.read("ids", tf.range(1, end), is_often=False)
            placed = self.index.grow(capacity, ids)
        with tf.control_dependencies([placed]):
            return tf.identity(capacity)

    def _columns(self) -> dict[str, Column]:
        columns = {"weights": Column(tf.float32, self.group.dim)}
        if self.group.state_dim:
            columns["state"] = Column(tf.float32, self.group.state_dim)
        integers = ["ids", "free", *self.group.stamps]
        if self.group.tracks_updates:
            integers.append("changed")  # The period of the last change.
        return columns | dict.fromkeys(integers, Column(tf.int64))

    def insert(self, ids: Tensor, clock: Clock) -> Tensor:
        """Makes rows for new ids while there is room, and returns their numbers.

        The caller holds the lock.
        """
        num_ids = tf.size(ids, tf.int64)
        num_free, next_row = self.num_free.read_value(), self.next_row.read_value()
        reused = tf.minimum(num_ids, num_free)
        fresh = num_ids - reused
        capacity = self.rows.capacity.read_value()
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
        # Rows are counted only once written, so that a step that fails takes none.
        written = self.write(numbers, weights, state, clock, ids=kept)
        with tf.control_dependencies([written]):
            counted = [
                self.num_free.assign_sub(reused),
                self.next_row.assign_add(fresh),
                self.count("rows", kept),
                self.count("inserted", kept),
                self.count("overflow", ids[reused + fresh :]),
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

    def write(
        self,
        numbers: Tensor,
        weights: Tensor,
        state: Tensor | None,
        clock: Clock,
        *,
        ids: Tensor | None = None,
        is_locked: bool = True,
    ) -> Tensor:
        """Writes rows; the result waits for this.

        Args:
          numbers: Their numbers.
          weights: Their weights.
          state: Their optimizer state.
          clock: The current step and time.
          ids: Their ids, if they are new.
          is_locked: Whether the caller holds the lock.
        """
        values = {"weights": weights}
        if ids is not None:
            values["ids"] = ids
        for name in self.group.stamps:
            values[name] = tf.fill([tf.size(numbers)], getattr(clock, name))
        if self.group.has_state:
            values["state"] = state
        if self.group.tracks_updates and is_locked:
            values["changed"] = tf.fill([tf.size(numbers)], self.period.read_value())
        written = self.rows.write(numbers, values, is_often=ids is None)
        if self.group.tracks_updates and not is_locked:
            with tf.control_dependencies([written]):
                return self._stamp(numbers)
        return written

    def _stamp(self, numbers: Tensor) -> Tensor:
        """Stamps rows that were just written without the lock."""

        # A period may begin at any moment. The stamp is read after the values are
        # written: one who read a row before that finds it changed afterwards. And if it
        # is outdated once it is written, one who looked for it may have missed it.
        def write() -> tuple[Tensor, Tensor]:
            period = self.period.read_value()
            periods = tf.fill([tf.size(numbers)], period)
            return period, self.rows.write(numbers, {"changed": periods})

        period, written = write()
        with tf.control_dependencies([written]):
            now = self.period.read_value()
        return tf.cond(
            tf.equal(now, period),
            lambda: written,
            lambda: self.lock.guard(lambda: write()[1], after=[written]),
        )

    def _bump(self) -> None:
        """Invalidates the results of earlier lookups."""
        for count in (self.generation, self.changes, self.version):
            count.assign_add(1)

    def count(self, counter: str, ids: Tensor, sign: int = 1) -> tf.Operation:
        """Adds the number of ids of each table to a counter."""
        num_tables = len(self.group.tables)
        if num_tables == 1:
            counts = tf.size(ids, tf.int64)[tf.newaxis]
        else:
            counts = tf.math.unsorted_segment_sum(
                tf.ones_like(ids), self.group.table_of(ids), num_tables
            )
        column = tf.one_hot(COUNTERS.index(counter), len(COUNTERS), dtype=tf.int64)
        return self.counters.assign_add(sign * counts[:, tf.newaxis] * column)


def _scalar(value: int) -> tf.Variable:
    return tf.Variable(value, dtype=tf.int64, trainable=False)
