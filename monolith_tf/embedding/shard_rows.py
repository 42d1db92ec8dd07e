"""The variables of one shard of one group, and what is done to them between steps."""

import uuid
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import admission
from monolith_tf.embedding import expiry
from monolith_tf.embedding.checkpoint_files import Chunk
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.row_index import RowIndex
from monolith_tf.types import Tensor

COUNTERS = ("rows", "inserted", "refused", "overflow", "dropped", "expired", "evicted")
"""What a shard counts for each of its tables; the meaning is in `EmbeddingStore`."""

STAMPS = ("step", "secs")
"""Names of the times of a row's last update, in the order of `Clock`."""


_CHUNK_BYTES = 1 << 26


class Clock(NamedTuple):
    """Step and time, int64 scalars; or one variable of each per row.

    A part is `()` where no table asks for it.
    """

    step: Tensor
    secs: Tensor


class ShardRows:
    """A shard's index, rows and bookkeeping.

    Row 0 belongs to no id and stays zero: an id without a row has number 0, so rows
    are gathered without asking whether they are there.

    Not tracked by `tf.Module`: a checkpoint writes the rows in use, in chunks, and not
    the variables.

    Args:
      group: The layout of the rows.
      device: Where everything lives.
      capacity: Rows there is room for; memory is taken only as rows are written.
      seed: Of the draws of probabilistic admission.
      is_raw: Whether ids are integers as they stand: unmixed, and without slot bits.
    """

    def __init__(
        self,
        group: Group,
        *,
        device: str,
        capacity: int,
        seed: int,
        is_raw: bool = False,
    ) -> None:
        slots = None if is_raw else [table.slot or 0 for table in group.tables]
        self.group = group
        self.device = device
        self._is_raw = is_raw
        with tf.device(device):
            self.index = RowIndex(slots, capacity)
            # In eager mode sections of one name are one lock.
            self.lock = tf.CriticalSection(shared_name=f"shard_{uuid.uuid4().hex}")
            self.next_row = _scalar(1)
            self.num_free = _scalar(0)
            self.generation = _scalar(0)  # Counts times at which rows were freed,
            self.changes = _scalar(0)  # of the index, and
            self.version = _scalar(0)  # of rows that had been there before.
            self.counters = tf.Variable(
                tf.zeros([len(group.tables), len(COUNTERS)], tf.int64), trainable=False
            )
            self.admission = admission.make(group, seed)
        self.ages = expiry.Ages(group)
        self.next_expiry = self.ages.never_looked()
        self.removed: list[tuple[int, np.ndarray]] = []  # Step, and ids that went.
        self.is_cramped = False  # Whether memory for more rows was refused.
        self._make_rows(capacity)

    def _make_rows(self, capacity: int) -> None:
        """Makes the variables that have one entry per row, all of them or none."""
        group = self.group

        def column(exists: bool) -> Any:
            return lazy_variable([capacity], tf.int64) if exists else ()

        with tf.device(self.device):
            weights = lazy_variable([capacity, group.dim], tf.float32)
            state = None
            if group.state_dim:
                state = lazy_variable([capacity, group.state_dim], tf.float32)
            row_ids, free = column(True), column(True)
            stamps = Clock(column(group.keeps_step), column(group.keeps_secs))
            scatter(weights, [0], tf.zeros([1, group.dim]))
            scatter(row_ids, [0], [-1])
            self.capacity = _scalar(capacity)
        self.weights, self.state = weights, state
        self.row_ids, self.free, self.stamps = row_ids, free, stamps

    def stamp_names(self) -> tuple[str, ...]:
        """Names of the stamps that are kept."""
        return tuple(
            name
            for name, stamp in zip(STAMPS, self.stamps, strict=True)
            if isinstance(stamp, tf.Variable)
        )

    def ids_in_use(
        self, size: int
    ) -> Iterator[tuple[Tensor, np.ndarray, dict[str, np.ndarray]]]:
        """Row numbers, ids and stamps of the rows in use, at most `size` at a time."""
        end = int(self.next_row)
        for start in range(1, end, size):
            with tf.device(self.device):
                numbers = tf.range(start, min(start + size, end), dtype=tf.int64)
                ids = self.row_ids.sparse_read(numbers)
                # An id of 64 bits may look like what a freed row has for an id.
                has_id = self.index.search(ids) == numbers if self._is_raw else ids >= 0
                numbers = tf.boolean_mask(numbers, has_id)
                ids = tf.boolean_mask(ids, has_id)
                stamps = {
                    name: getattr(self.stamps, name).sparse_read(numbers).numpy()
                    for name in self.stamp_names()
                }
            if tf.size(ids):
                yield numbers, ids.numpy(), stamps

    def chunks(
        self, size: int, *, with_state: bool = True, since_step: int | None = None
    ) -> Iterator[Chunk]:
        """The rows in use, at most `size` at a time.

        Args:
          size: Row numbers to look at together.
          with_state: Whether optimizer state is read too.
          since_step: Only rows updated at this step or later.
        """
        for numbers, ids, stamps in self.ids_in_use(size):
            if since_step is not None:
                is_new = stamps["step"] >= since_step
                numbers, ids = numbers[is_new], ids[is_new]
                stamps = {name: stamp[is_new] for name, stamp in stamps.items()}
            with tf.device(self.device):
                weights = self.weights.sparse_read(numbers).numpy()
                if self.state is None or not with_state:
                    state = np.zeros([len(ids), 0], np.float32)
                else:
                    state = self.state.sparse_read(numbers).numpy()
            yield Chunk(ids, weights, state, stamps)

    def load(self, chunk: Chunk) -> None:
        """Adds rows of ids that have none, with a stamp for each that is kept."""
        start = int(self.next_row)
        end = start + len(chunk.ids)
        if end > int(self.capacity):
            self.reserve(2 * end)
        with tf.device(self.device):
            numbers = tf.range(start, end, dtype=tf.int64)
            self.write(numbers, chunk.weights, chunk.state)
            scatter(self.row_ids, numbers, chunk.ids)
            for name in self.stamp_names():
                scatter(getattr(self.stamps, name), numbers, chunk.stamps[name])
            self.next_row.assign(end)
            self._bump()
            self.count(COUNTERS.index("rows"), tf.constant(chunk.ids))
            self.index.insert(tf.constant(chunk.ids), numbers)

    def remove(self, ids: np.ndarray, counter: int, step: int | None) -> None:
        """Frees the rows of ids, for other ids to use.

        Args:
          ids: Ids that have a row.
          counter: Where they are counted.
          step: The global step, which is remembered where updates are tracked.
        """
        if not len(ids):
            return
        if self.group.tracks_updates and step is not None:
            self.removed.append((step, ids))
        with tf.device(self.device):
            keys = tf.constant(ids, tf.int64)
            numbers = self.index.search(keys)
            self.index.remove(keys)
            start = self.num_free.read_value()
            scatter(
                self.row_ids, numbers, tf.fill([len(ids)], tf.constant(-1, tf.int64))
            )
            scatter(self.free, tf.range(start, start + len(ids)), numbers)
            self.num_free.assign_add(len(ids))
            self._bump()
            self.count(counter, keys)
            self.count(COUNTERS.index("rows"), keys, sign=-1)

    def clear(self) -> None:
        """Forgets all ids, counts and counters."""
        with tf.device(self.device):
            self.index.clear()
            self.next_row.assign(1)
            self.num_free.assign(0)
            self._bump()
            self.counters.assign(tf.zeros_like(self.counters))
        self.next_expiry = self.ages.never_looked()
        self.removed.clear()
        if self.admission is not None:
            self.admission.clear()

    def reserve(self, num_rows: int) -> None:
        """Replaces the variables by others with room for so many row numbers.

        Functions traced before hold the former variables and must be traced again:
        they fail at their next call.
        """
        old = self._by_row()
        self._make_rows(num_rows)
        size = max(1, _CHUNK_BYTES // self.group.row_bytes)
        with tf.device(self.device):
            for (before, used), (after, _) in zip(old, self._by_row(), strict=True):
                end = int(used)
                for start in range(0, end, size):
                    numbers = tf.range(start, min(start + size, end), dtype=tf.int64)
                    scatter(after, numbers, before.sparse_read(numbers))
                _empty(before)

    def _by_row(self) -> list[tuple[tf.Variable, tf.Variable]]:
        """The variables that have one entry per row, and how many are in use."""
        by_row = [self.weights, self.state, self.row_ids, *self.stamps]
        used = [(v, self.next_row) for v in by_row if isinstance(v, tf.Variable)]
        return [*used, (self.free, self.num_free)]

    def write(
        self, numbers: Tensor, weights: Tensor, state: Tensor | None
    ) -> list[tf.Operation]:
        """Writes whole rows."""
        writes = [scatter(self.weights, numbers, weights)]
        if self.state is not None:
            writes.append(scatter(self.state, numbers, state))
        return writes

    def _bump(self) -> None:
        """Makes what was looked up before be looked up again."""
        for count in (self.generation, self.changes, self.version):
            count.assign_add(1)

    def count(self, counter: int, ids: Tensor, sign: int = 1) -> tf.Operation:
        """Adds the number of ids of each table to a counter."""
        num_tables = len(self.group.tables)
        if num_tables == 1:
            counts = tf.size(ids, tf.int64)[tf.newaxis]
        else:
            counts = tf.math.unsorted_segment_sum(
                tf.ones_like(ids), self.group.table_of(ids), num_tables
            )
        column = tf.one_hot(counter, len(COUNTERS), dtype=tf.int64)
        return self.counters.assign_add(sign * counts[:, tf.newaxis] * column)


def scatter(variable: tf.Variable, numbers: Tensor, values: Tensor) -> tf.Operation:
    """Writes rows of a variable."""
    return tf.raw_ops.ResourceScatterUpdate(
        resource=variable.handle,
        indices=tf.convert_to_tensor(numbers, tf.int64),
        updates=tf.convert_to_tensor(values, variable.dtype),
    )


def lazy_variable(shape: list[int], dtype: tf.DType) -> tf.Variable:
    """A variable whose memory is taken as it is first written, and not before.

    Its values are undefined until then. It must never be read whole: that would take,
    and copy, all of it.
    """
    return tf.Variable(
        lambda: tf.raw_ops.Empty(shape=shape, dtype=dtype, init=False),
        shape=shape,
        dtype=dtype,
        trainable=False,
    )


def _empty(variable: tf.Variable) -> None:
    """Gives a variable's memory back; what still reads it fails."""
    tf.raw_ops.AssignVariableOp(
        resource=variable.handle,
        value=tf.zeros([0, *variable.shape[1:]], variable.dtype),
        validate_shape=False,
    )


def _scalar(value: int) -> tf.Variable:
    return tf.Variable(value, dtype=tf.int64, trainable=False)
