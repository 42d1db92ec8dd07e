"""The columns of a shard's rows, in blocks: a table grows by adding one."""

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from monolith_tf import connected
from monolith_tf.embedding.shard.bindable import Bindable
from monolith_tf.types import Tensor

MAX_ROWS = (1 << 31) - 1
"""Maximum rows of a shard, so that a row number fits into an int32."""

_MAX_BLOCKS = 32
_MOVED_BYTES = 1 << 24  # Takes a few milliseconds to copy.
_MOVED_TIMES = 4
_ADDED_SHARE = 1 / 16  # Of a machine's memory; at most this is reserved in vain.
_NEVER = tf.int64.max
# Each run of a `VarHandleOp` with this name makes a new variable, which lives as long
# as any tensor holds its handle.
_ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


class Column(NamedTuple):
    """Values of one kind, one or `width` of them per row."""

    dtype: tf.DType
    width: int | None = None


class _Known(NamedTuple):
    """What a trace knows of a column: everything but its width."""

    name: str
    dtype: tf.DType
    rank: int


class RowBlocks(Bindable):
    """Columns of values by row number, which grow while they are read and written.

    A column is a list of blocks, and a block is a variable, created by the graph that
    needs it. The handles are stored in a variable, so growth needs no new trace, and a
    reader that holds a handle keeps its block alive.

    A small first block is replaced by a copy several times its size, since rows in one
    block are read in half the time. After that, blocks are added and nothing is copied;
    each is as large as all before it, up to a share of the machine's memory. Memory is
    taken only when rows are first written; values are undefined until then.

    Rows may be read at any time. Writes to a first block may be lost while it is
    copied, so growth and writes must hold one lock.

    Args:
      columns: Name -> column.
      capacity: Initial capacity, in rows.

    Attributes:
      capacity: Current capacity, in rows.
      max_rows: Maximum capacity.
      most_added: Maximum rows that a growth adds, unless more are asked for.
    """

    own = (
        "_handles",
        "_starts",
        "_num_blocks",
        "capacity",
        "max_rows",
        "most_added",
        "_most_moved",
    )
    shared = ("_columns",)

    def __init__(self, columns: Mapping[str, Column], capacity: int) -> None:
        self._columns = tuple(
            _Known(name, column.dtype, 1 if column.width is None else 2)
            for name, column in columns.items()
        )
        row_bytes = sum(c.dtype.size * (c.width or 1) for c in columns.values())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._most_moved = _scalar(_MOVED_BYTES // row_bytes)
        self._handles = {
            name: tf.Variable(
                tf.stack([_new_block(_room(column, capacity))] * _MAX_BLOCKS),
                dtype=tf.resource,
                trainable=False,
            )
            for name, column in columns.items()
        }
        starts = [0] + [_NEVER] * (_MAX_BLOCKS - 1)
        self._starts = tf.Variable(starts, dtype=tf.int64, trainable=False)
        self._num_blocks = _scalar(1)
        self.capacity = _scalar(capacity)
        self.max_rows = _scalar(MAX_ROWS)
        self.most_added = _scalar(int(memory * _ADDED_SHARE) // row_bytes)

    def names(self) -> tuple[str, ...]:
        """Returns the names of the columns."""
        return tuple(column.name for column in self._columns)

    def read(self, name: str, numbers: Tensor, *, is_often: bool = True) -> Tensor:
        """Returns rows of a column.

        Args:
          name: Name of the column.
          numbers: Row numbers, `[n]`, int64.
          is_often: Whether to optimize for one block, which takes longer to trace.
        """
        column, blocks = self._known(name), self._handles[name]

        def from_first() -> Tensor:
            return _gather(_handles(blocks.handle)[0], numbers, column.dtype)

        def from_all() -> Tensor:
            gather = _function(_gather_from_blocks, (column.dtype,))
            return gather(blocks.handle, self._starts.handle, numbers)

        if is_often:
            rows = tf.cond(self._is_one_block(numbers), from_first, from_all)
        else:
            rows = from_all()
        return tf.ensure_shape(rows, [None] * column.rank)

    def write(
        self, numbers: Tensor, values: Mapping[str, Tensor], *, is_often: bool = True
    ) -> Tensor:
        """Writes rows of some columns; the result is available after the writes.

        Args:
          numbers: Row numbers, `[n]`, int64.
          values: Name of a column -> its rows.
          is_often: As in `read`.
        """
        numbers = tf.convert_to_tensor(numbers, tf.int64)
        rows = {
            name: tf.convert_to_tensor(value, self._known(name).dtype)
            for name, value in values.items()
        }

        def to_first() -> Tensor:
            writes = [
                _scatter(_handles(self._handles[name].handle)[0], numbers, value)
                for name, value in rows.items()
            ]
            with tf.control_dependencies(writes):
                return tf.size(numbers)

        def to_all() -> Tensor:
            dtypes = tuple(value.dtype for value in rows.values())
            return _function(_scatter_to_blocks, dtypes)(
                *[self._handles[name].handle for name in rows],
                self._starts.handle,
                numbers,
                *rows.values(),
            )

        if not is_often:
            return to_all()
        return tf.cond(self._is_one_block(numbers), to_first, to_all)

    def grow(self, wanted: Tensor, used: Mapping[str, Tensor]) -> Tensor:
        """Makes room for `wanted` rows or more; for fewer if it reaches a limit.

        Args:
          wanted: The capacity to reach, an int64 scalar.
          used: Name of a column -> how many rows to keep, counted from the first.

        Returns:
          The new capacity.

        Raises:
          tf.errors.ResourceExhaustedError: If there is no memory; nothing changes.
        """
        grow = _function(_grow, tuple(column.dtype for column in self._columns))
        capacity = grow(
            *[handles.handle for handles in self._handles.values()],
            tf.stack([used[column.name] for column in self._columns]),
            self._starts.handle,
            self._num_blocks.handle,
            self.capacity.handle,
            tf.cast(wanted, tf.int64),
            self._most_moved.read_value(),
            self.most_added.read_value(),
            self.max_rows.read_value(),
        )
        return tf.ensure_shape(capacity, [])

    def _known(self, name: str) -> "_Known":
        return next(column for column in self._columns if column.name == name)

    def _is_one_block(self, numbers: Tensor) -> Tensor:
        # A row number is handed out only after its block is in place. So reading the
        # blocks after the numbers always finds it; before them, it may miss a new one.
        with tf.control_dependencies([numbers]):
            return tf.equal(self._num_blocks.read_value(), 1)


def _scalar(value: int) -> tf.Variable:
    return tf.Variable(value, dtype=tf.int64, trainable=False)


def _room(column: Column, num_rows: int) -> Tensor:
    shape = [num_rows] if column.width is None else [num_rows, column.width]
    return tf.raw_ops.Empty(shape=shape, dtype=column.dtype, init=False)


def _new_block(values: Tensor) -> Tensor:
    """Returns the handle of a new variable, once it holds the values."""
    handle = tf.raw_ops.VarHandleOp(
        dtype=values.dtype, shape=None, shared_name=_ANONYMOUS
    )
    written = tf.raw_ops.AssignVariableOp(resource=handle, value=values)
    if tf.executing_eagerly():
        return handle
    with tf.control_dependencies([written]):
        return tf.identity(handle)


def _handles(blocks: Tensor) -> Tensor:
    """Returns the handles of a column's blocks, `[_MAX_BLOCKS]`."""
    return tf.ensure_shape(
        tf.raw_ops.ReadVariableOp(resource=blocks, dtype=tf.resource), [_MAX_BLOCKS]
    )


def _gather(block: Tensor, numbers: Tensor, dtype: tf.DType) -> Tensor:
    return tf.raw_ops.ResourceGather(resource=block, indices=numbers, dtype=dtype)


def _scatter(block: Tensor, numbers: Tensor, values: Tensor) -> tf.Operation:
    return tf.raw_ops.ResourceScatterUpdate(
        resource=block, indices=numbers, updates=values
    )


# The functions below are called rarely, or by tables with several blocks. They receive
# everything that they use as arguments, so that one trace serves all tables.


def _spread(starts: Tensor, numbers: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Returns for each block which of the numbers it holds, and their rows in it."""
    with tf.control_dependencies([numbers]):
        starts = tf.raw_ops.ReadVariableOp(resource=starts, dtype=tf.int64)
    starts = tf.ensure_shape(starts, [_MAX_BLOCKS])
    blocks = tf.searchsorted(starts, numbers, side="right") - 1
    rows = numbers - tf.gather(starts, blocks)
    places = tf.range(tf.size(numbers))
    # Few operations per block: before a graph's first run, TensorFlow looks at all
    # operations of each function that the graph calls.
    return (
        tf.dynamic_partition(places, blocks, _MAX_BLOCKS),
        tf.dynamic_partition(rows, blocks, _MAX_BLOCKS),
    )


def _gather_from_blocks(
    blocks: Tensor, starts: Tensor, numbers: Tensor, *, dtypes: Sequence[tf.DType]
) -> Tensor:
    places, rows = _spread(starts, numbers)
    with tf.control_dependencies([numbers]):
        handles = tf.unstack(_handles(blocks))
    found = [_gather(h, r, dtypes[0]) for h, r in zip(handles, rows, strict=True)]
    return tf.dynamic_stitch(places, found)


def _scatter_to_blocks(*arguments: Tensor, dtypes: Sequence[tf.DType]) -> Tensor:
    columns, (starts, numbers, *values) = (
        arguments[: len(dtypes)],
        arguments[len(dtypes) :],
    )
    places, rows = _spread(starts, numbers)
    writes = []
    for column, of_column in zip(columns, values, strict=True):
        with tf.control_dependencies([numbers]):
            handles = tf.unstack(_handles(column))
        writes += [
            _scatter(
                handle, of_block, tf.raw_ops.Gather(params=of_column, indices=place)
            )
            for handle, of_block, place in zip(handles, rows, places, strict=True)
        ]
    with tf.control_dependencies(writes):
        return tf.size(numbers)


def _grow(*arguments: Tensor, dtypes: Sequence[tf.DType]) -> Tensor:
    """See `RowBlocks.grow`."""
    columns = arguments[: len(dtypes)]
    used, starts, num_blocks, capacity, *limits = arguments[len(dtypes) :]
    wanted, most_moved, most_added, max_rows = limits
    now = tf.raw_ops.ReadVariableOp(resource=capacity, dtype=tf.int64)
    number = tf.raw_ops.ReadVariableOp(resource=num_blocks, dtype=tf.int64)
    is_moved = tf.equal(number, 1) & (now <= most_moved)
    added = tf.where(is_moved, (_MOVED_TIMES - 1) * now, now)
    size = tf.maximum(wanted, now + tf.minimum(added, most_added))
    size = tf.minimum(size, max_rows)

    def write(handles: Sequence[Tensor], start: Tensor, count: Tensor) -> Tensor:
        """Publishes blocks that exist: handles, starts, their number, the capacity."""
        # Readers take no lock. New row numbers are handed out only after the capacity
        # is written, so a reader that has one finds its block. A reader with an older
        # number finds its row in the blocks before and after the growth.
        place = count - 1
        known = tf.raw_ops.ReadVariableOp(resource=starts, dtype=tf.int64)
        is_new = tf.equal(tf.range(_MAX_BLOCKS, dtype=tf.int64), place)
        writes = [
            tf.raw_ops.AssignVariableOp(resource=column, value=new)
            for column, new in zip(columns, handles, strict=True)
        ]
        with tf.control_dependencies(writes):
            written = tf.raw_ops.AssignVariableOp(
                resource=starts, value=tf.where(is_new, start, known)
            )
        with tf.control_dependencies([written]):
            written = tf.raw_ops.AssignVariableOp(resource=num_blocks, value=count)
        with tf.control_dependencies([written]):
            written = tf.raw_ops.AssignVariableOp(resource=capacity, value=size)
        with tf.control_dependencies([written]):
            return tf.identity(size)

    def rooms(num_rows: Tensor) -> list[Tensor]:
        """Allocates all columns before any is used: a failure must change nothing."""
        made = []
        for column, dtype in zip(columns, dtypes, strict=True):
            shape = tf.raw_ops.VariableShape(input=_handles(column)[0])
            shape = tf.concat([[tf.cast(num_rows, tf.int32)], shape[1:]], axis=0)
            made.append(tf.raw_ops.Empty(shape=shape, dtype=dtype, init=False))
        with tf.control_dependencies(made):
            return [_new_block(values) for values in made]

    def move() -> Tensor:
        """Replaces the first block by a larger copy."""
        handles = []
        for place, block in enumerate(rooms(size)):
            numbers = tf.range(used[place])
            rows = _gather(_handles(columns[place])[0], numbers, dtypes[place])
            with tf.control_dependencies([_scatter(block, numbers, rows)]):
                handles.append(tf.stack([tf.identity(block)] * _MAX_BLOCKS))
        return write(handles, tf.constant(0, tf.int64), number)

    def add() -> Tensor:
        """Appends a block."""
        chosen = tf.range(_MAX_BLOCKS)
        is_new = tf.equal(chosen, tf.cast(number, tf.int32))
        chosen = tf.where(is_new, _MAX_BLOCKS, chosen)
        handles = [
            tf.gather(tf.stack([*tf.unstack(_handles(column)), block]), chosen)
            for column, block in zip(columns, rooms(size - now), strict=True)
        ]
        return write(handles, now, number + 1)

    def more() -> Tensor:
        return tf.cond(is_moved, move, add)

    is_short = (wanted > now) & (size > now) & (number < _MAX_BLOCKS)
    return tf.cond(is_short, more, lambda: now)


_RESOURCE = tf.TensorSpec([], tf.resource)
_INTEGER = tf.TensorSpec([], tf.int64)
_NUMBERS = tf.TensorSpec([None], tf.int64)


@connected.cached
def _function(function: Any, dtypes: tuple[tf.DType, ...]) -> Any:
    """Returns a function, traced outside of the caller's graph."""
    signature = [_RESOURCE, _RESOURCE, _NUMBERS]
    if function is _scatter_to_blocks:
        signature = [_RESOURCE] * (len(dtypes) + 1) + [_NUMBERS]
        signature += [tf.TensorSpec(None, dtype) for dtype in dtypes]
    elif function is _grow:
        signature = [_RESOURCE] * len(dtypes) + [_NUMBERS]
        signature += [_RESOURCE] * 3 + [_INTEGER] * 4
    with tf.init_scope():
        return tf.function(
            lambda *arguments: function(*arguments, dtypes=dtypes),
            input_signature=signature,
            autograph=False,
            # Inlining it would make every graph that calls it large.
            experimental_attributes={"_noinline": True},
        ).get_concrete_function()
