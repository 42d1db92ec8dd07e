"""From features' ids to one list of distinct ids per group, and back to features."""

from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.embedding.lookup import combiners
from monolith_tf.embedding.lookup import distinct as distinct_lib
from monolith_tf.embedding.lookup import expansion
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.lookup.distinct import Distinct
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.lookup.pulled import PulledShard
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.types import Tensor


class Router:
    """Maps features to the groups that they read, in a fixed order.

    The occurrences of a group's ids are in this order: features with one id per
    example, then features with lists of ids, each in the order of `columns`.

    Attributes:
      groups: Group name -> group.
      columns: Group name -> its columns; those that combine alike are adjacent.

    Args:
      groups: All groups.
      columns: All columns; features must differ.

    Raises:
      ValueError: If a column names a missing table, or two name one feature.
    """

    def __init__(self, groups: Sequence[Group], columns: Sequence[ColumnSpec]) -> None:
        self.groups = {group.name: group for group in groups}
        self.columns: dict[str, list[ColumnSpec]] = {name: [] for name in self.groups}
        group_of = {table.name: group for group in groups for table in group.tables}
        features: dict[str, None] = {}
        for column in columns:
            if column.table not in group_of:
                raise ValueError(
                    "`table` of every column must be one of the tables. Received: "
                    f"feature={column.feature!r}, table={column.table!r}; the tables "
                    f"are {sorted(group_of)}."
                )
            if column.feature in features:
                raise ValueError(
                    "`columns` must differ in feature. "
                    f"Received: feature={column.feature!r} twice."
                )
            features[column.feature] = None
            self.columns[group_of[column.table].name].append(column)
        for of_group in self.columns.values():
            of_group.sort(key=expansion.manner)
        self._features = tuple(features)

    def distinct(
        self, ids: Mapping[str, Tensor]
    ) -> tuple[dict[str, Distinct], dict[str, Tensor]]:
        """Collects the distinct ids of each group.

        Args:
          ids: Feature -> `[batch]` ids or a ragged `[batch, None]`, int64. Columns
            whose feature is missing are skipped.

        Returns:
          Group name -> distinct ids, and feature -> row splits, `()` for one id per
          example. Groups without any of their features are left out.
        """
        pieces, splits = self._pieces(ids)
        distinct = {
            name: distinct_lib.distinct(
                *zip(*of_group, strict=True),
                with_counts=self.groups[name].counts_occurrences,
            )
            for name, of_group in pieces.items()
        }
        return distinct, splits

    def _pieces(
        self, ids: Mapping[str, Tensor]
    ) -> tuple[dict[str, list[tuple[Tensor, int]]], dict[str, Tensor]]:
        """Returns group name -> ids and slots of features; feature -> row splits."""
        self.check_features(ids)
        splits: dict[str, Tensor] = {}
        sizes: dict[str, int | None] = {}
        pieces = {}
        for name, columns in self.columns.items():
            slots = {table.name: table.slot or 0 for table in self.groups[name].tables}
            singles: list[tuple[Tensor, int]] = []
            lists: list[tuple[Tensor, int]] = []
            for column in columns:
                if column.feature not in ids:
                    continue
                values, row_splits = _flat(ids[column.feature], column)
                splits[column.feature] = row_splits
                sizes[column.feature] = _batch_size(values, row_splits)
                is_single = expansion.is_single(row_splits)
                (singles if is_single else lists).append((values, slots[column.table]))
            if singles or lists:
                pieces[name] = singles + lists
        _check_batch(sizes)
        return pieces, splits

    def combine(
        self,
        rows: Mapping[str, Tensor],
        inverses: Mapping[str, Tensor],
        splits: Mapping[str, Tensor],
    ) -> dict[str, dict[str, Tensor]]:
        """Turns rows of distinct ids into every feature's embeddings.

        Args:
          rows: Group name -> `[unique, group.dim]`.
          inverses: Group name -> `Distinct.inverse`.
          splits: Feature -> row splits, from `distinct`.

        Returns:
          Feature -> slice name -> embedding, in the order of the columns.
        """
        embeddings: dict[str, dict[str, Tensor]] = {
            feature: {} for feature in self._features if feature in splits
        }
        for name, group_rows in rows.items():
            group = self.groups[name]
            columns = [c for c in self.columns[name] if c.feature in splits]
            dims = [part.dim for part in group.parts]
            slices = (
                tf.split(group_rows, dims, axis=1) if len(dims) > 1 else [group_rows]
            )
            for part, slice_rows in zip(group.parts, slices, strict=True):
                combined = expansion.combine(
                    columns, splits, slice_rows, inverses[name]
                )
                for feature, embedding in combined.items():
                    embeddings[feature][part.name] = embedding
        return embeddings

    def masks(self, splits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns for "first_n" features where ids are: `[batch, max_length]`, bool."""
        masks = {}
        for columns in self.columns.values():
            for column in columns:
                if column.combiner == "first_n" and column.feature in splits:
                    row_splits = splits[column.feature]
                    masks[column.feature] = tf.sequence_mask(
                        row_splits[1:] - row_splits[:-1], column.max_length
                    )
        return masks

    def check_features(self, ids: Mapping[str, Tensor]) -> None:
        """Raises ValueError for a feature that no column names."""
        known = [c.feature for columns in self.columns.values() for c in columns]
        unknown = sorted(set(ids) - set(known))
        if unknown:
            raise ValueError(
                "`ids` must hold features that a column names. Received: "
                f"features={unknown}; the columns are for {known}."
            )


def partition(batch: Distinct, num_shards: int) -> list[PulledShard]:
    """Splits distinct ids by shard."""
    if num_shards == 1:
        return [PulledShard((), batch.ids, batch.counts)]
    of_ids = layout.shard_of(batch.ids, num_shards)
    numbers = tf.range(tf.size(batch.ids))
    parts = []
    for places in tf.dynamic_partition(numbers, of_ids, num_shards):
        counts = batch.counts
        if not isinstance(counts, tuple):
            counts = tf.gather(counts, places)
        parts.append(PulledShard(places, tf.gather(batch.ids, places), counts))
    return parts


def _batch_size(values: Tensor, row_splits: Tensor) -> int | None:
    """Returns the batch size if it is known while tracing."""
    if expansion.is_single(row_splits):
        return values.shape[0]
    return None if row_splits.shape[0] is None else row_splits.shape[0] - 1


def _check_batch(sizes: Mapping[str, int | None]) -> None:
    if len({size for size in sizes.values() if size is not None}) > 1:
        raise ValueError(
            "`ids` must have one batch size; look features of another one up by "
            f"themselves. Received: batch sizes {dict(sizes)}."
        )


def _flat(ids: Tensor, column: ColumnSpec) -> tuple[Tensor, Tensor]:
    """Returns the ids in one list, and row splits, `()` for one id per example."""
    if isinstance(ids, tf.RaggedTensor):
        values, row_splits = ids.values, tf.cast(ids.row_splits, tf.int64)
        if column.max_length is None:
            return values, row_splits
        return combiners.truncate(values, row_splits, column.max_length)
    ids = tf.convert_to_tensor(ids, tf.int64)
    if ids.shape.rank != 1:
        raise ValueError(
            "`ids` must be `[batch]` tensors or ragged `[batch, None]` tensors. "
            f"Received: feature={column.feature!r}, shape={ids.shape}."
        )
    if column.combiner in ("first_n", "none"):
        return ids, tf.range(tf.size(ids, tf.int64) + 1)
    return ids, ()
