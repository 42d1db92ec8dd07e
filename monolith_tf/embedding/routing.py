"""From features' ids to one list of distinct ids per group, and back to features."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from monolith_tf.embedding import combiners
from monolith_tf.embedding.layout import Group
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.types import Tensor

# Below this width a product with a sparse matrix of ones adds rows up faster than
# `unsorted_segment_sum` does, in the same order and so with the same result.
_MATMUL_DIMS = 32


class Distinct(NamedTuple):
    """A batch's ids of one group.

    Attributes:
      ids: Each once, `[unique]`, int64.
      inverse: For each occurrence its place in `ids`, `[occurrences]`, int32.
      counts: Occurrences of each, `[unique]`, int64; `()` where nobody asks.
    """

    ids: Tensor
    inverse: Tensor
    counts: Tensor


class Router:
    """Knows which features read which group, and in which order.

    The occurrences of a group's ids stand in this order: features with one id per
    example, then features with lists of ids, each in column order.

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
        features: set[str] = set()
        for column in columns:
            if column.table not in group_of:
                raise ValueError(
                    f"Feature {column.feature!r} must name one of the tables. Received: "
                    f"table={column.table!r}; the tables are {sorted(group_of)}."
                )
            if column.feature in features:
                raise ValueError(
                    "`columns` must differ in feature. "
                    f"Received: feature={column.feature!r} twice."
                )
            features.add(column.feature)
            self.columns[group_of[column.table].name].append(column)

    def distinct(
        self, ids: Mapping[str, Any]
    ) -> tuple[dict[str, Distinct], dict[str, Any]]:
        """Collects the distinct ids of each group.

        Args:
          ids: Feature -> `[batch]` ids or a ragged `[batch, None]`, int64. Columns
            whose feature is missing are left out.

        Returns:
          Group name -> distinct ids, and feature -> row splits, `()` for one id per
          example. Groups none of whose features is given are left out.
        """
        self._check_features(ids)
        splits: dict[str, Any] = {}
        distinct = {}
        for name, columns in self.columns.items():
            singles, lists = [], []
            for column in columns:
                if column.feature not in ids:
                    continue
                values, row_splits = _flat(ids[column.feature], column)
                splits[column.feature] = row_splits
                (singles if isinstance(row_splits, tuple) else lists).append(values)
            if not singles and not lists:
                continue
            pieces = singles + lists
            occurrences = tf.concat(pieces, axis=0) if len(pieces) > 1 else pieces[0]
            counts: Any = ()
            if self.groups[name].counts_occurrences:
                unique, inverse, counts = tf.unique_with_counts(occurrences)
                counts = tf.cast(counts, tf.int64)
            else:
                unique, inverse = tf.unique(occurrences)
            distinct[name] = Distinct(unique, inverse, counts)
        return distinct, splits

    def combine(
        self,
        rows: Mapping[str, Tensor],
        inverses: Mapping[str, Tensor],
        splits: Mapping[str, Any],
    ) -> dict[str, dict[str, Any]]:
        """Turns rows of distinct ids into every feature's embeddings.

        Args:
          rows: Group name -> `[unique, group.dim]`.
          inverses: Group name -> `Distinct.inverse`.
          splits: Feature -> row splits, as `distinct` gave them.

        Returns:
          Feature -> slice name -> embedding.
        """
        embeddings: dict[str, dict[str, Any]] = {feature: {} for feature in splits}
        for name, group_rows in rows.items():
            group = self.groups[name]
            columns = [c for c in self.columns[name] if c.feature in splits]
            dims = [part.dim for part in group.parts]
            slices = (
                tf.split(group_rows, dims, axis=1) if len(dims) > 1 else [group_rows]
            )
            for part, slice_rows in zip(group.parts, slices, strict=True):
                combined = _combine_slice(columns, splits, slice_rows, inverses[name])
                for feature, embedding in combined.items():
                    embeddings[feature][part.name] = embedding
        return embeddings

    def masks(self, splits: Mapping[str, Any]) -> dict[str, Tensor]:
        """Which places of a `first_n` feature hold an id: `[batch, max_length]`."""
        masks = {}
        for columns in self.columns.values():
            for column in columns:
                if column.combiner == "first_n" and column.feature in splits:
                    row_splits = splits[column.feature]
                    masks[column.feature] = tf.sequence_mask(
                        row_splits[1:] - row_splits[:-1], column.max_length
                    )
        return masks

    def _check_features(self, ids: Mapping[str, Any]) -> None:
        known = [c.feature for columns in self.columns.values() for c in columns]
        unknown = sorted(set(ids) - set(known))
        if unknown:
            raise ValueError(
                "`ids` must hold features that a column names. Received: "
                f"features={unknown}; the columns are for {known}."
            )


def expand(rows: Tensor, inverse: Tensor) -> Tensor:
    """Gathers rows of distinct ids for every occurrence; its gradient is dense."""

    @tf.custom_gradient
    def gather(rows: Tensor) -> Any:
        def sum_of(gradients: Tensor) -> Tensor:
            return sum_by_row(gradients, inverse, tf.shape(rows)[0])

        return tf.gather(rows, inverse), sum_of

    return gather(rows)


def sum_by_row(values: Tensor, places: Tensor, num_rows: Tensor) -> Tensor:
    """Adds `values[i]` to row `places[i]` of `[num_rows, dim]`, in the order of `i`."""
    if values.shape[1] is None or values.shape[1] >= _MATMUL_DIMS:
        return tf.math.unsorted_segment_sum(values, places, num_rows)
    num_values = tf.shape(values, tf.int64)[0]
    coordinates = tf.stack(
        [tf.cast(places, tf.int64), tf.range(num_values)], axis=1
    )  # [n, 2]
    total = tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=coordinates,
        a_values=tf.ones([num_values], values.dtype),
        a_shape=tf.stack([tf.cast(num_rows, tf.int64), num_values]),
        b=values,
    )
    return tf.ensure_shape(total, [None, values.shape[1]])


def _flat(ids: Any, column: ColumnSpec) -> tuple[Tensor, Any]:
    """The ids in one list, and their row splits, `()` for one id per example."""
    if isinstance(ids, tf.RaggedTensor):
        if column.max_length is None:
            return ids.values, ids.row_splits
        return combiners.truncate(ids.values, ids.row_splits, column.max_length)
    ids = tf.convert_to_tensor(ids, tf.int64)
    if ids.shape.rank != 1:
        raise ValueError(
            "`ids` must be `[batch]` tensors or ragged `[batch, None]` tensors. "
            f"Received: feature={column.feature!r}, shape={ids.shape}."
        )
    if column.combiner in ("first_n", "none"):
        return ids, tf.range(tf.size(ids, tf.int64) + 1)
    return ids, ()


def _combine_slice(
    columns: Sequence[ColumnSpec],
    splits: Mapping[str, Any],
    rows: Tensor,
    inverse: Tensor,
) -> dict[str, Any]:
    singles = [c for c in columns if isinstance(splits[c.feature], tuple)]
    lists = [c for c in columns if not isinstance(splits[c.feature], tuple)]
    expanded = expand(rows, inverse)  # [occurrences, dim]
    embeddings = {}
    if singles and lists:
        num_listed = tf.add_n([splits[c.feature][-1] for c in lists])
        num_single = tf.size(inverse, num_listed.dtype) - num_listed
        of_singles, expanded = tf.split(expanded, [num_single, num_listed])
    else:
        of_singles = expanded
    if singles:
        # One id per example: every combiner of one row is that row.
        for column, embedding in zip(
            singles, tf.split(of_singles, len(singles)), strict=True
        ):
            embeddings[column.feature] = embedding
    if lists:
        sizes = [splits[c.feature][-1] for c in lists]
        pieces = tf.split(expanded, tf.stack(sizes)) if len(lists) > 1 else [expanded]
        for column, values in zip(lists, pieces, strict=True):
            embedding = combiners.combine(
                values, splits[column.feature], column.combiner, column.max_length
            )
            if column.combiner == "first_n":
                embedding, _ = embedding
            embeddings[column.feature] = embedding
    return embeddings
