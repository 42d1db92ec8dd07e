"""One feature's lists of ids in a frozen store, ragged or padded."""

import tensorflow as tf

from monolith_tf.embedding.lookup import combiners
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.padded import Padded
from monolith_tf.types import Nest
from monolith_tf.types import Tensor


def asked(ids: Tensor, column: ColumnSpec) -> tuple[Tensor, Nest]:
    """Returns a feature's ids, and its row splits, padded lists or None."""
    if isinstance(ids, tf.RaggedTensor):
        values, splits = ids.values, tf.cast(ids.row_splits, tf.int64)
        if column.max_length is not None:
            values, splits = combiners.truncate(values, splits, column.max_length)
        return values, splits
    if not isinstance(ids, Padded):
        ids = tf.convert_to_tensor(ids, tf.int64)
        if column.combiner not in ("first_n", "none"):
            return ids, None
        ids = Padded(ids[:, tf.newaxis], tf.ones_like(ids))
    if column.max_length is not None:
        is_fixed = column.combiner == "first_n"
        ids = (ids.resized if is_fixed else ids.cut)(column.max_length)
    return ids.values, ids


def combined(rows: Tensor, lists: Nest, column: ColumnSpec) -> Tensor:
    """Returns one feature's embedding of one slice."""
    if lists is None:
        return rows
    if isinstance(lists, Padded):
        return combiners.combine_padded(rows, lists, column.combiner)
    combined = combiners.combine(rows, lists, column.combiner, column.max_length)
    return combined[0] if column.combiner == "first_n" else combined


def mask(lists: Nest, column: ColumnSpec) -> Tensor:
    """Returns the mask of a "first_n" feature's ids, `[batch, max_length]`."""
    if isinstance(lists, Padded):
        return lists.mask()
    return tf.sequence_mask(lists[1:] - lists[:-1], column.max_length)
