"""Combines the rows of an example's ids into its embedding.

The rows of a batch come as one tensor, `[total, dim]`, list after list; list `i` is
`values[row_splits[i]:row_splits[i + 1]]`.
"""

import typing

import tensorflow as tf

from monolith_tf.embedding.spec import Combiner
from monolith_tf.gradients import custom_gradient
from monolith_tf.padded import Padded
from monolith_tf.types import RaggedTensor
from monolith_tf.types import Tensor


def combine(
    values: Tensor,
    row_splits: Tensor,
    combiner: Combiner = "sum",
    max_length: int | None = None,
) -> Tensor | tuple[Tensor, Tensor] | RaggedTensor:
    """Turns lists of rows into one embedding each.

    Args:
      values: Rows, `[total, dim]`.
      row_splits: Where the lists begin and end, `[batch + 1]`, int64.
      combiner: "sum", "mean", "sqrtn" (the sum over the square root of the length) or
        "max"; "first_n", the first `max_length` rows, padded with zeros; or "none". An
        empty list gives zeros.
      max_length: Rows that "first_n" keeps of a list, at least 1. The other combiners
        take whole lists; cut them with `truncate` beforehand.

    Returns:
      `[batch, dim]`; for "first_n", `[batch, max_length, dim]` and a mask, `[batch,
      max_length]`, that is true where there is a row; for "none", a ragged tensor of
      shape `[batch, None, dim]`.

    Raises:
      ValueError: If there is no such combiner, or "first_n" has no `max_length`.
    """
    if combiner not in typing.get_args(Combiner):
        raise ValueError(
            f"`combiner` must be one of {list(typing.get_args(Combiner))}. "
            f"Received: combiner={combiner!r}."
        )
    if combiner == "none":
        return tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)
    if combiner == "first_n":
        if max_length is None or max_length < 1:
            raise ValueError(
                "`max_length` must be at least 1 with combiner='first_n'. "
                f"Received: max_length={max_length}."
            )
        return _first_n(values, row_splits, max_length)
    ids = _list_numbers(row_splits)
    if combiner == "max":
        return _to_batch(tf.math.segment_max(values, ids), row_splits)
    sums = _to_batch(tf.math.segment_sum(values, ids), row_splits)
    return _averaged(sums, _lengths(row_splits), combiner)


def combine_padded(
    values: Tensor, lists: Padded, combiner: Combiner
) -> Tensor | RaggedTensor:
    """Turns padded lists of rows into one embedding each, as `combine` does.

    Args:
      values: Rows, `[batch, width, dim]`; zeros for padding.
      lists: The ids of the rows; for "first_n", resized to its length.
      combiner: As in `combine`.
    """
    if combiner == "none":
        return tf.RaggedTensor.from_tensor(values, lengths=lists.lengths)
    if combiner == "first_n":
        return values
    if combiner == "max":
        lowest = tf.where(lists.mask()[:, :, tf.newaxis], values, values.dtype.min)
        largest = tf.reduce_max(lowest, axis=1)
        return tf.where(lists.lengths[:, tf.newaxis] > 0, largest, 0.0)
    return _averaged(tf.reduce_sum(values, axis=1), lists.lengths, combiner)


def truncate(
    values: Tensor, row_splits: Tensor, max_length: int
) -> tuple[Tensor, Tensor]:
    """Keeps the first `max_length` items of each list.

    Args:
      values: Items, `[total, ...]`, such as the ids of a batch before their lookup.
      row_splits: `[batch + 1]`, int64.
      max_length: Items to keep of each list.

    Returns:
      The items that are kept, and their `row_splits`.
    """
    lists = tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)
    lists = lists[:, :max_length]
    return lists.values, lists.row_splits


def _averaged(sums: Tensor, lengths: Tensor, combiner: Combiner) -> Tensor:
    if combiner == "sum":
        return sums
    counts = tf.cast(tf.maximum(lengths, 1), sums.dtype)[:, tf.newaxis]
    return sums / (counts if combiner == "mean" else tf.sqrt(counts))


def _lengths(row_splits: Tensor) -> Tensor:
    return row_splits[1:] - row_splits[:-1]  # [batch]


def _list_numbers(row_splits: Tensor) -> Tensor:
    """Returns the number of each row's list, `[total]`, int32, ascending.

    Counts the lists that begin at each row and sums the counts: a third of the time of
    `tf.repeat`, whose memory also grows with the longest list.
    """
    begins = row_splits[1:-1]
    total = row_splits[-1]
    counts = tf.math.unsorted_segment_sum(
        tf.ones_like(begins, tf.int32), begins, total + 1
    )
    return tf.cumsum(counts[:-1])


def _places(row_splits: Tensor) -> Tensor:
    """Returns each row's index in its list, `[total]`, int64."""
    begins = tf.gather(row_splits, _list_numbers(row_splits))
    return tf.range(row_splits[-1]) - begins


def _to_batch(sums: Tensor, row_splits: Tensor) -> Tensor:
    """Adds the empty lists at the end of a batch, which segment operations omit."""
    batch = tf.shape(row_splits)[0] - 1
    sums = tf.pad(sums, [[0, batch - tf.shape(sums)[0]], [0, 0]])
    if row_splits.shape[0] is not None:
        sums = tf.ensure_shape(sums, [row_splits.shape[0] - 1, sums.shape[1]])
    return sums  # [batch, dim]


def _first_n(
    values: Tensor, row_splits: Tensor, max_length: int
) -> tuple[Tensor, Tensor]:
    dim = values.shape[1]

    @custom_gradient
    def pad(values: Tensor) -> tuple[Tensor, Tensor]:
        ragged = tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)

        def gradient(upstream: Tensor) -> Tensor:
            places = _places(row_splits)
            lists = tf.cast(_list_numbers(row_splits), places.dtype)
            indices = lists * max_length + tf.minimum(places, max_length - 1)
            rows = tf.gather(tf.reshape(upstream, [-1, dim]), indices)  # [total, dim]
            kept = (places < max_length)[:, tf.newaxis]
            return tf.where(kept, rows, tf.zeros([], rows.dtype))

        return ragged.to_tensor(shape=[None, max_length, dim]), gradient

    mask = tf.sequence_mask(_lengths(row_splits), max_length)
    return pad(values), mask
