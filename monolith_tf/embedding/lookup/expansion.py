"""From the rows of distinct ids to the embeddings of features, and back."""

import itertools
from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.embedding.lookup import combiners
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.gradients import custom_gradient
from monolith_tf.types import Tensor

_MIN_MATMUL_DIM = 4
_MAX_MATMUL_DIM = 31


def is_single(row_splits: Tensor | tuple[()]) -> bool:
    """Returns whether a feature has one id per example, and so no row splits."""
    return isinstance(row_splits, tuple)


def manner(column: ColumnSpec) -> tuple[str, int]:
    """Returns what lists must share to be combined by the same operations."""
    length = column.max_length if column.combiner == "first_n" else None
    return column.combiner, length or 0


def combine(
    columns: Sequence[ColumnSpec],
    splits: Mapping[str, Tensor],
    rows: Tensor,
    inverse: Tensor,
) -> dict[str, Tensor]:
    """Combines one slice; the number of operations does not grow with features.

    Args:
      columns: The features; those of one `manner` are adjacent.
      splits: Feature -> row splits, `()` for one id per example.
      rows: Rows of distinct ids, `[unique, dim]`.
      inverse: Index in `rows` of each occurrence: first of features with one id per
        example, then of the others.

    Returns:
      Feature -> embedding.
    """
    expanded = expand(rows, inverse)  # [occurrences, dim]
    singles = [c for c in columns if is_single(splits[c.feature])]
    lists = [c for c in columns if not is_single(splits[c.feature])]
    embeddings = {}
    if singles and lists:
        num_listed = tf.add_n([splits[c.feature][-1] for c in lists])
        num_single = tf.shape(expanded, tf.int64)[0] - num_listed
        expanded, of_lists = tf.split(expanded, [num_single, num_listed])
    else:
        of_lists = expanded
    if singles:
        # One id per example: every combiner returns its row.
        pieces = tf.split(expanded, len(singles))
        for column, embedding in zip(singles, pieces, strict=True):
            embeddings[column.feature] = embedding
    if lists:
        embeddings |= _combine_lists(lists, splits, of_lists)
    return embeddings


def _combine_lists(
    columns: Sequence[ColumnSpec], splits: Mapping[str, Tensor], values: Tensor
) -> dict[str, Tensor]:
    alike = [list(group) for _, group in itertools.groupby(columns, manner)]
    sizes = [tf.add_n([splits[c.feature][-1] for c in group]) for group in alike]
    pieces = tf.split(values, tf.stack(sizes)) if len(alike) > 1 else [values]
    embeddings = {}
    for group, piece in zip(alike, pieces, strict=True):
        combiner, max_length = group[0].combiner, group[0].max_length
        splits_of_group = [splits[c.feature] for c in group]
        if combiner == "none":
            ends = tf.stack([row_splits[-1] for row_splits in splits_of_group])
            combined = [
                combiners.combine(part, row_splits, combiner)
                for part, row_splits in zip(
                    tf.split(piece, ends, num=len(group)), splits_of_group, strict=True
                )
            ]
        else:
            together = combiners.combine(
                piece, _joined(splits_of_group), combiner, max_length
            )
            if combiner == "first_n":
                together, _ = together
            combined = tf.split(together, len(group))
        for column, embedding in zip(group, combined, strict=True):
            embeddings[column.feature] = embedding
    return embeddings


def _joined(splits: Sequence[Tensor]) -> Tensor:
    """Returns row splits of the lists of several features, feature after feature."""
    if len(splits) == 1:
        return splits[0]
    stacked = tf.stack(splits)  # [features, batch + 1]
    lengths = tf.reshape(stacked[:, 1:] - stacked[:, :-1], [-1])
    return tf.concat([tf.zeros([1], tf.int64), tf.cumsum(lengths)], axis=0)


def expand(rows: Tensor, inverse: Tensor) -> Tensor:
    """Gathers rows of distinct ids for every occurrence; its gradient is dense."""

    @custom_gradient
    def gather(rows: Tensor) -> Tensor:
        def sum_of(gradients: Tensor) -> Tensor:
            # Gradients of some operations lose their static width.
            gradients = tf.ensure_shape(gradients, [None, rows.shape[1]])
            return sum_by_row(gradients, inverse, tf.unstack(tf.shape(rows))[0])

        return tf.gather(rows, inverse), sum_of

    return gather(rows)


def sum_by_row(values: Tensor, places: Tensor, num_rows: Tensor) -> Tensor:
    """Adds `values[i]` to row `places[i]` of `[num_rows, dim]`, in the order of `i`.

    Gives the same numbers as `tf.math.unsorted_segment_sum`, several times faster: a
    product with a sparse matrix of ones, by pieces of rows that fit into registers.

    Args:
      values: `[n, dim]`, float32.
      places: `[n]`, int32.
      num_rows: A scalar, int32.
    """
    dim = values.shape[1]
    width = max(w for w in range(1, _MAX_MATMUL_DIM + 1) if dim % w == 0)
    if width < _MIN_MATMUL_DIM and width < dim:
        return tf.math.unsorted_segment_sum(values, places, num_rows)
    pieces = dim // width
    if pieces > 1:
        places = tf.reshape(places[:, tf.newaxis] * pieces + tf.range(pieces), [-1])
        values = tf.reshape(values, [-1, width])
    num_pieces = tf.size(places, tf.int64)
    # Pairs (place, i) of int32, written as one int64 each: low half, high half.
    step = tf.constant(1 << 32, tf.int64)
    orders = tf.raw_ops.Range(
        start=tf.zeros([], tf.int64), limit=num_pieces * step, delta=step
    )
    sums = tf.raw_ops.SparseTensorDenseMatMul(
        a_indices=tf.bitcast(tf.cast(places, tf.int64) + orders, tf.int32),  # [n, 2]
        a_values=tf.fill(tf.shape(places), tf.ones([], values.dtype)),
        a_shape=tf.stack([tf.cast(num_rows, tf.int64) * pieces, num_pieces]),
        b=values,
    )
    return tf.reshape(sums, [-1, dim]) if pieces > 1 else sums
