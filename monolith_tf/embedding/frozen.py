"""Read-only tables, for export."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import layout
from monolith_tf.embedding import routing
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.pulled import Pulled
from monolith_tf.embedding.restoring import Restoring
from monolith_tf.embedding.shard_rows import scatter
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.ids import HASH_BITS
from monolith_tf.ids import NUM_SLOTS
from monolith_tf.types import Tensor

Rows: TypeAlias = Iterable[tuple[np.ndarray, np.ndarray]]
"""Chunks: ids, `[n]`, and weights, `[n, dim]`, of tables whose slices are equal."""

# Half floats are kept as their bits: TensorFlow cannot read back a tensor of them that
# was written in parts.
_DTYPES = {"fp32": tf.float32, "fp16": tf.int16, "int8": tf.int8}
_INT8_STEPS = 127


class FrozenStore(tf.Module):
    """Tables as they were, without optimizer state, stored as their slices say.

    Answers `lookup`, `combine` and `masks` as an `EmbeddingStore` does outside of
    training. Its variables do not say how many rows they have, so that a graph that
    was saved with an empty store also answers from the rows that `frozen_files.write`
    puts into its files.

    Attributes:
      groups: The tables as they are stored.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
      exact: Whether all slices are stored as full floats, whatever they say.
    """

    def __init__(
        self,
        tables: Sequence[TableSpec],
        columns: Sequence[ColumnSpec],
        *,
        exact: bool = False,
    ) -> None:
        super().__init__(name="frozen_store")
        self._columns = tuple(columns)
        self.groups = [FrozenGroup(group, exact) for group in frozen_groups(tables)]
        self._router = routing.Router([g.group for g in self.groups], columns)
        self._group_of_slot = np.full(NUM_SLOTS, -1)
        for number, frozen in enumerate(self.groups):
            for table in frozen.group.tables:
                self._group_of_slot[table.slot or 0] = number

    @property
    def tables(self) -> tuple[TableSpec, ...]:
        """The tables, group by group."""
        return tuple(table for frozen in self.groups for table in frozen.group.tables)

    @property
    def features(self) -> tuple[str, ...]:
        """All features, in the order in which `combine` gives them."""
        columns = self._router.columns.values()
        return tuple(column.feature for of_group in columns for column in of_group)

    def emptied(self, *, exact: bool) -> "FrozenStore":
        """Returns a store of the same tables without rows."""
        return FrozenStore(self.tables, self._columns, exact=exact)

    def fill(self, rows: Rows) -> None:
        """Adds rows, of ids that have none yet, in memory."""
        chunks = list(self.by_group(rows))
        for number, frozen in enumerate(self.groups):
            mine = [(ids, weights) for place, ids, weights in chunks if place == number]
            if mine:
                ids, weights = map(np.concatenate, zip(*mine, strict=True))
                frozen.add(ids, weights)

    def by_group(self, rows: Rows) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Splits chunks of rows by the group they belong to, a place in `groups`."""
        for ids, weights in rows:
            places = self._group_of_slot[ids >> HASH_BITS]
            for place in np.unique(places).tolist():
                mine = places == place
                whole = mine.all()
                yield (
                    place,
                    ids if whole else ids[mine],
                    weights if whole else weights[mine],
                )

    @tf.autograph.experimental.do_not_convert
    def lookup(
        self,
        ids: Mapping[str, Any],
        *,
        training: bool = False,
        step: Tensor | None = None,
        now_secs: Tensor | None = None,
    ) -> Pulled:
        """Finds the rows of a batch's ids; see `EmbeddingStore.lookup`.

        Raises:
          ValueError: If `training`.
        """
        del step, now_secs
        if training:
            raise ValueError(
                "`training` must be False: a frozen store does not learn. "
                "Received: training=True."
            )
        # Without gradients to sum, finding ids twice costs less than finding doubles.
        occurrences, splits = self._router.occurrences(ids)
        rows = {
            frozen.group.name: frozen.read(occurrences[frozen.group.name])
            for frozen in self.groups
            if frozen.group.name in occurrences
        }
        inverses = dict.fromkeys(rows, ())
        return Pulled(rows, inverses, splits, {}, ())

    @tf.autograph.experimental.do_not_convert
    def combine(self, pulled: Pulled) -> dict[str, dict[str, Any]]:
        """Embeddings of every feature: feature -> slice name -> tensor."""
        return self._router.combine(pulled.rows, pulled.inverses, pulled.splits)

    @tf.autograph.experimental.do_not_convert
    def masks(self, pulled: Pulled) -> dict[str, Tensor]:
        """For each "first_n" feature `[batch, max_length]`, true where an id stands."""
        return self._router.masks(pulled.splits)


class FrozenGroup(tf.Module):
    """An index and, for each slice, a variable of the stored type.

    Row 0 is zero and answers for ids without a row.

    Attributes:
      group: The tables and the layout of their rows.
      index: Id -> row number.
      slices: The slices' rows, `[rows, dim]` each, however many there are.
    """

    def __init__(self, group: Group, exact: bool) -> None:
        super().__init__(name="frozen_group")
        self.group = group
        self._specs = group.tables[0].row_slices()
        self._compressors = ["fp32" if exact else s.compressor for s in self._specs]
        self.index = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=0
        )
        self.slices = [
            tf.Variable(
                tf.zeros([1, spec.dim], _DTYPES[compressor]),
                shape=tf.TensorShape([None, spec.dim]),
                trainable=False,
                name=spec.name,
            )
            for spec, compressor in zip(self._specs, self._compressors, strict=True)
        ]

    def add(self, ids: np.ndarray, weights: np.ndarray) -> None:
        """Makes room for rows and adds them."""
        start = self.capacity()
        for variable, values in zip(self.slices, self.compress(weights), strict=True):
            variable.assign(tf.concat([variable, values], axis=0))
        self.insert(ids, tf.range(start, start + len(ids), dtype=tf.int64))

    def capacity(self) -> Tensor:
        """How many rows there is room for, row 0 among them; int64."""
        # Not read: a copy of all rows would be made.
        return tf.raw_ops.VariableShape(input=self.slices[0].handle, out_type=tf.int64)[
            0
        ]

    def find(self, ids: Tensor) -> Tensor:
        """Row numbers of ids, 0 for an id without a row."""
        return tf.ensure_shape(self.index.lookup(ids), [None])

    def insert(self, ids: Tensor, numbers: Tensor) -> tf.Operation:
        """Tells where the rows of ids are."""
        return self.index.insert(tf.convert_to_tensor(ids, tf.int64), numbers)

    def write(self, numbers: Tensor, weights: Tensor) -> list[tf.Operation]:
        """Overwrites rows."""
        return [
            scatter(variable, numbers, values)
            for variable, values in zip(
                self.slices, self.compress(weights), strict=True
            )
        ]

    def read(self, ids: Tensor) -> Tensor:
        """Returns the rows of ids, `[n, dim]`, zeros for an id without a row."""
        numbers = self.find(ids)
        slices = []
        for spec, compressor, variable in zip(
            self._specs, self._compressors, self.slices, strict=True
        ):
            values = tf.gather(variable, numbers)
            if compressor == "fp16":
                values = tf.bitcast(values, tf.float16)
            values = tf.cast(values, tf.float32)
            if compressor == "int8":
                values *= spec.int8_range / _INT8_STEPS
            slices.append(values)
        return tf.concat(slices, axis=1) if len(slices) > 1 else slices[0]

    def compress(self, weights: Tensor) -> list[Tensor]:
        """Returns rows as they are stored, slice by slice."""
        stored = []
        for part, spec, compressor in zip(
            self.group.parts, self._specs, self._compressors, strict=True
        ):
            values = weights[:, part.start : part.start + part.dim]
            if compressor == "int8":
                steps = tf.round(values / spec.int8_range * _INT8_STEPS)
                values = tf.clip_by_value(steps, -_INT8_STEPS, _INT8_STEPS)
            elif compressor == "fp16":
                values = tf.bitcast(tf.cast(values, tf.float16), tf.int16)
            stored.append(tf.cast(values, _DTYPES[compressor]))
        return stored


def frozen_groups(tables: Sequence[TableSpec]) -> tuple[Group, ...]:
    """Groups tables by how their rows are served."""

    def key(part: SliceSpec) -> tuple:
        return part.compressor, part.int8_range if part.compressor == "int8" else None

    return layout.merge_tables(tables, key)


def saved_rows(
    tables: Sequence[TableSpec],
    directory: str,
    *,
    deltas: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Callable[[], Rows]:
    """Returns a function that reads the rows of what `EmbeddingStore.save` wrote.

    Args:
      tables: The tables, each with a slot.
      directory: Of the checkpoint.
      deltas: Directories of what changed since, oldest first.
      aliases: Saved table name -> table name.
      seed: Of the values of slices that the checkpoint lacks.

    Raises:
      ValueError: If the checkpoint is damaged or does not fit the tables.
    """
    restoring = Restoring(
        directory,
        frozen_groups(tables),
        seed=seed,
        deltas=deltas,
        aliases=aliases,
        with_optimizer_state=False,
    )
    return lambda: ((chunk.ids, chunk.weights) for _, chunk in restoring.rows())


def frozen_store(
    tables: Sequence[TableSpec],
    columns: Sequence[ColumnSpec],
    directory: str,
    **kwargs: Any,
) -> FrozenStore:
    """Builds a read-only store straight from what `EmbeddingStore.save` wrote.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
      directory: Of the checkpoint.
      **kwargs: Further arguments of `saved_rows`.

    Raises:
      ValueError: If the checkpoint is damaged or does not fit the tables.
    """
    store = FrozenStore(tables, columns)
    store.fill(saved_rows(tables, directory, **kwargs)())
    return store
