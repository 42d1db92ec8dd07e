"""The variables of one shard of one group, and what is done to them between steps."""

import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import ClassVar
from typing import NamedTuple
from typing import TypeVar

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.shard import admission
from monolith_tf.embedding.shard import expiry
from monolith_tf.embedding.shard import group_kind
from monolith_tf.embedding.shard import locks
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.embedding.shard.bindable import Packed
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.row_blocks import MAX_ROWS
from monolith_tf.embedding.shard.row_blocks import Column
from monolith_tf.embedding.shard.row_blocks import RowBlocks
from monolith_tf.embedding.shard.row_index import RowIndex
from monolith_tf.types import Tensor

COUNTERS = ("rows", "inserted", "refused", "overflow", "dropped", "expired", "evicted")
"""What a shard counts for each of its tables; the meaning is in `EmbeddingStore`."""

STAMPS = ("step", "secs")
"""Names of the times of a row's last update, in the order of `Clock`."""

_LOADED_ROWS = 1 << 16  # At a time, so that the lock is not held for long.

_Result = TypeVar("_Result")


class Clock(NamedTuple):
    """Step and time, int64 scalars; or one variable of each per row.

    A part is `()` where no table asks for it.
    """

    step: Tensor
    secs: Tensor


class ShardRows(Bindable):
    """A shard's index, rows and bookkeeping.

    Row 0 belongs to no id and stays zero: an id without a row has number 0, so rows
    are gathered without asking whether they are there.

    All of it is one unit: whoever changes the index, the rows or what is kept about
    them holds its lock. Rows may be read without it.

    Not tracked by `tf.Module`: a checkpoint writes the rows in use, in chunks, and not
    the variables.

    Args:
      group: The layout of the rows.
      device: Where everything lives.
      capacity: Rows there is room for at first; more is made when it is needed. Memory
        is taken only as rows are written.
      seed: Of initial values, and of the draws of probabilistic admission.
      is_raw: Whether ids are integers as they stand: unmixed, and without slot bits.
    """

    own = (
        "facts",
        "mutex",
        "index",
        "rows",
        "admission",
        "next_row",
        "num_free",
        "generation",
        "changes",
        "version",
        "counters",
    )
    shared: ClassVar[tuple[str, ...]] = "kind", "_is_raw"

    def __init__(
        self,
        group: Group,
        *,
        device: str,
        capacity: int,
        seed: int,
        is_raw: bool = False,
    ) -> None:
        slots = None if is_raw else group.slots().tolist()
        self.group = group
        self.kind = group_kind.kind_of(group)
        self.device = device
        self._is_raw = is_raw
        with tf.device(device):
            self.facts = group_kind.facts_of(group, seed)
            self.index = RowIndex(slots, capacity)
            self.mutex = tf.raw_ops.MutexV2(shared_name=locks.name_of(self, device))
            self.next_row = _scalar(1)
            self.num_free = _scalar(0)
            self.generation = _scalar(0)  # Counts times at which rows were freed,
            self.changes = _scalar(0)  # of the index, and
            self.version = _scalar(0)  # of rows that had been there before.
            self.counters = tf.Variable(
                tf.zeros([len(group.tables), len(COUNTERS)], tf.int64), trainable=False
            )
            self.admission = admission.make(group, seed)
            self.rows = RowBlocks(self._columns(), capacity)
            self.rows.write(
                tf.constant([0], tf.int64),
                {"weights": tf.zeros([1, group.dim]), "ids": [-1]},
            )
            self.packed = Packed(self)
        self.ages = expiry.Ages(group)
        self.next_expiry = self.ages.never_looked()
        self.looked_at_secs = -math.inf  # When expiry was last looked for.
        self.removed: list[tuple[int, np.ndarray]] = []  # Step, and ids that went.
        self.is_cramped = False  # Whether memory for more rows was refused.

    def on_bound(self) -> None:
        """See base class."""
        self.group = group_kind.BoundGroup.of(self.kind, self.facts)

    @property
    def capacity(self) -> tf.Variable:
        """Rows there is room for, that of nobody among them."""
        return self.rows.capacity

    def stamp_names(self) -> tuple[str, ...]:
        """Names of the stamps that are kept."""
        is_kept = self.group.keeps_step, self.group.keeps_secs
        return tuple(name for name, kept in zip(STAMPS, is_kept, strict=True) if kept)

    def locked(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """Runs a function eagerly, while nobody else changes this shard."""
        with tf.device(self.device):
            lock = tf.raw_ops.MutexLock(mutex=self.mutex)
            try:
                return function(*args)
            finally:
                del lock  # It is held as long as this is there.

    def ranges(self, size: int) -> Iterator[tuple[int, int]]:
        """First row number, and that behind the last, of `size` rows at most."""
        end = int(self.next_row)
        for start in range(1, end, size):
            yield start, min(start + size, end)

    def in_use(
        self, start: int, end: int
    ) -> tuple[Tensor, np.ndarray, dict[str, np.ndarray]]:
        """Row numbers, ids and stamps of the rows in use from one number to another."""
        with tf.device(self.device):
            numbers = tf.range(start, end, dtype=tf.int64)
            ids = self.rows.read("ids", numbers).numpy()
            stamps = {
                name: self.rows.read(name, numbers).numpy()
                for name in self.stamp_names()
            }
            used = ids >= 0
            if self._is_raw:  # An id may look like what a freed row has for an id.
                used |= (self.index.search(ids) == numbers).numpy()
            if used.all():
                return numbers, ids, stamps
            stamps = {name: stamp[used] for name, stamp in stamps.items()}
            return numbers[used], ids[used], stamps

    def chunks(
        self, size: int, *, with_state: bool = True, since_step: int | None = None
    ) -> Iterator[Chunk]:
        """The rows in use, at most `size` at a time.

        Args:
          size: Row numbers to look at together.
          with_state: Whether optimizer state is read too.
          since_step: Only rows updated at this step or later.
        """

        def read(start: int, end: int) -> Chunk:
            numbers, ids, stamps = self.in_use(start, end)
            if since_step is not None:
                is_new = stamps["step"] >= since_step
                numbers, ids = numbers[is_new], ids[is_new]
                stamps = {name: stamp[is_new] for name, stamp in stamps.items()}
            weights = self.rows.read("weights", numbers).numpy()
            state = np.zeros([len(ids), 0], np.float32)
            if self.group.state_dim and with_state:
                state = self.rows.read("state", numbers).numpy()
            return Chunk(ids, weights, state, stamps)

        for start, end in self.ranges(size):
            chunk = self.locked(read, start, end)
            if len(chunk.ids):
                yield chunk

    def load(self, chunk: Chunk) -> None:
        """Writes rows with a stamp for each that is kept, as new ones or over old ones.

        Raises:
          TableFullError: If there is no room for them.
        """
        for start in range(0, len(chunk.ids), _LOADED_ROWS):
            piece = chunk.take(slice(start, start + _LOADED_ROWS))
            self.locked(self._load, piece)
        self.next_expiry = self.ages.never_looked()

    def _load(self, chunk: Chunk) -> None:
        ids = tf.constant(chunk.ids, tf.int64)
        numbers = self.index.search(ids).numpy()
        is_new = numbers == 0
        start = int(self.next_row)
        end = start + int(is_new.sum())
        if end > int(self.capacity) and int(self.grow(tf.constant(end))) < end:
            raise expiry.TableFullError(
                f"A shard holds at most {MAX_ROWS} rows. Received: {end - 1} ids of "
                f"{[table.name for table in self.group.tables]} on {self.device}. Use "
                "more shards."
            )
        numbers[is_new] = np.arange(start, end)
        values = {"weights": chunk.weights, "ids": chunk.ids}
        values |= {name: chunk.stamps[name] for name in self.stamp_names()}
        if self.group.state_dim:
            values["state"] = chunk.state
        self.rows.write(tf.constant(numbers), values)
        self.next_row.assign(end)
        for counter in ("rows", "inserted"):
            self.count(COUNTERS.index(counter), ids[is_new])
        self.index.insert(ids[is_new], tf.constant(numbers[is_new]))
        self._bump()

    def remove(self, ids: np.ndarray, counter: int, step: int | None) -> None:
        """Frees the rows of ids, for other ids to use; the lock is held.

        Args:
          ids: Distinct ids; those that have no row are passed over.
          counter: Where they are counted.
          step: The global step, which is remembered where updates are tracked.
        """
        numbers = self.index.search(tf.constant(ids, tf.int64)).numpy()
        ids, numbers = ids[numbers > 0], numbers[numbers > 0]
        if not len(ids):
            return
        if self.group.tracks_updates and step is not None:
            self.removed.append((step, ids))
        keys = tf.constant(ids, tf.int64)
        self.index.remove(keys)
        start = self.num_free.read_value()
        self.rows.write(tf.constant(numbers), {"ids": np.full(len(ids), -1)})
        self.rows.write(tf.range(start, start + len(ids)), {"free": numbers})
        self.num_free.assign_add(len(ids))
        self._bump()
        self.count(counter, keys)
        self.count(COUNTERS.index("rows"), keys, sign=-1)

    def clear(self) -> None:
        """Forgets all ids, counts and counters."""
        self.locked(self._clear)

    def _clear(self) -> None:
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
        """Makes room for so many row numbers; steps may go on meanwhile.

        Raises:
          tf.errors.ResourceExhaustedError: If there is no memory; nothing has changed.
        """
        self.locked(self.grow, tf.constant(num_rows, tf.int64))

    def grow(self, num_rows: Tensor) -> Tensor:
        """Makes room for so many row numbers or more; the lock is held.

        Returns:
          The row numbers there is room for now; fewer only at `MAX_ROWS`.
        """
        next_row = self.next_row.read_value()
        used = dict.fromkeys(self.rows.names(), next_row)
        used["free"] = self.num_free.read_value()
        capacity = self.rows.grow(num_rows, used)
        with tf.control_dependencies([capacity]):
            # In a large table it would take long to look at all ids.
            end = tf.where(self.index.has_use_for(capacity), next_row, 1)
            ids = self.rows.read("ids", tf.range(1, end), is_often=False)
            placed = self.index.grow(capacity, ids)
        with tf.control_dependencies([placed]):
            return tf.identity(capacity)

    def _columns(self) -> dict[str, Column]:
        columns = {"weights": Column(tf.float32, self.group.dim)}
        if self.group.state_dim:
            columns["state"] = Column(tf.float32, self.group.state_dim)
        integers = "ids", "free", *self.stamp_names()
        return columns | dict.fromkeys(integers, Column(tf.int64))

    def write(
        self,
        numbers: Tensor,
        weights: Tensor,
        state: Tensor | None,
        others: Mapping[str, Tensor],
        *,
        is_often: bool = True,
    ) -> Tensor:
        """Writes whole rows, and other columns of them; returns what waits for it."""
        values = {"weights": weights, **others}
        if self.group.has_state:
            values["state"] = state
        return self.rows.write(numbers, values, is_often=is_often)

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


def _scalar(value: int) -> tf.Variable:
    return tf.Variable(value, dtype=tf.int64, trainable=False)
