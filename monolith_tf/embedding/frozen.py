"""Read-only tables of exact size, for export."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

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

_DTYPES = {"fp32": tf.float32, "fp16": tf.float16, "int8": tf.int8}
_INT8_STEPS = 127


class FrozenStore(tf.Module):
    """Tables as they were, without optimizer state, stored as their slices say.

    Answers `lookup`, `combine` and `masks` as an `EmbeddingStore` does outside of
    training. Its variables have exactly the size of the rows in use, and
    `tf.saved_model.save` writes it; a plain session loader answers from what it wrote.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
      num_rows: Table name -> rows that `fill` will bring.
    """

    def __init__(
        self,
        tables: Sequence[TableSpec],
        columns: Sequence[ColumnSpec],
        num_rows: Mapping[str, int],
    ) -> None:
        super().__init__(name="frozen_store")
        self._groups = [
            _FrozenGroup(group, sum(num_rows.get(t.name, 0) for t in group.tables))
            for group in frozen_groups(tables)
        ]
        self._router = routing.Router([g.group for g in self._groups], columns)

    def fill(self, chunks: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Adds rows.

        Args:
          chunks: Ids that have no row yet, `[n]`, and their weights, `[n, dim]`; those
            of one chunk are of tables with equal slices.
        """
        place = np.full(NUM_SLOTS, -1)
        for i, frozen in enumerate(self._groups):
            for table in frozen.group.tables:
                place[table.slot or 0] = i
        for ids, weights in chunks:
            places = place[ids >> HASH_BITS]
            for i in np.unique(places):
                self._groups[i].add(ids[places == i], weights[places == i])

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
        distinct, splits = self._router.distinct(ids)
        rows = {
            frozen.group.name: frozen.read(distinct[frozen.group.name].ids)
            for frozen in self._groups
            if frozen.group.name in distinct
        }
        inverses = {name: batch.inverse for name, batch in distinct.items()}
        return Pulled(rows, inverses, splits, {}, ())

    @tf.autograph.experimental.do_not_convert
    def combine(self, pulled: Pulled) -> dict[str, dict[str, Any]]:
        """Embeddings of every feature: feature -> slice name -> tensor."""
        return self._router.combine(pulled.rows, pulled.inverses, pulled.splits)

    @tf.autograph.experimental.do_not_convert
    def masks(self, pulled: Pulled) -> dict[str, Tensor]:
        """For each "first_n" feature `[batch, max_length]`, true where an id stands."""
        return self._router.masks(pulled.splits)


class _FrozenGroup(tf.Module):
    """An index and, for each slice, a variable of the stored type."""

    def __init__(self, group: Group, num_rows: int) -> None:
        super().__init__(name="frozen_group")
        self.group = group
        self._index = tf.lookup.experimental.MutableHashTable(
            tf.int64, tf.int64, default_value=0
        )
        self._specs = group.tables[0].row_slices()
        self._next = 1
        self._slices = []
        for part in self._specs:
            # Row 0 answers for ids without a row.
            variable = tf.Variable(
                tf.zeros([num_rows + 1, part.dim], _DTYPES[part.compressor]),
                trainable=False,
                name=part.name,
            )
            self._slices.append(variable)

    def add(self, ids: np.ndarray, weights: np.ndarray) -> None:
        numbers = tf.range(self._next, self._next + len(ids), dtype=tf.int64)
        for part, spec, variable in zip(
            self.group.parts, self._specs, self._slices, strict=True
        ):
            values = weights[:, part.start : part.start + part.dim]
            scatter(variable, numbers, _compressed(values, spec))
        self._index.insert(tf.constant(ids), numbers)
        self._next += len(ids)

    def read(self, ids: Tensor) -> Tensor:
        numbers = tf.ensure_shape(self._index.lookup(ids), [None])
        slices = []
        for spec, variable in zip(self._specs, self._slices, strict=True):
            values = tf.cast(tf.gather(variable, numbers), tf.float32)
            if spec.compressor == "int8":
                values *= spec.int8_range / _INT8_STEPS
            slices.append(values)
        return tf.concat(slices, axis=1) if len(slices) > 1 else slices[0]


def frozen_groups(tables: Sequence[TableSpec]) -> tuple[Group, ...]:
    """Groups tables by how their rows are served."""

    def key(part: SliceSpec) -> tuple:
        return part.compressor, part.int8_range if part.compressor == "int8" else None

    return layout.merge_tables(tables, key)


def frozen_store(
    tables: Sequence[TableSpec],
    columns: Sequence[ColumnSpec],
    directory: str,
    *,
    deltas: Sequence[str] = (),
    aliases: Mapping[str, str] | None = None,
    seed: int = 0,
) -> FrozenStore:
    """Builds a read-only store straight from what `EmbeddingStore.save` wrote.

    Args:
      tables: The tables, each with a slot.
      columns: The features that read them.
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
    store = FrozenStore(tables, columns, restoring.newest.num_rows())
    store.fill((chunk.ids, chunk.weights) for _, chunk in restoring.rows())
    return store


def _compressed(values: np.ndarray, spec: SliceSpec) -> np.ndarray:
    if spec.compressor == "int8":
        steps = np.rint(values / spec.int8_range * _INT8_STEPS)
        return np.clip(steps, -_INT8_STEPS, _INT8_STEPS).astype(np.int8)
    return values.astype(_DTYPES[spec.compressor].as_numpy_dtype)
