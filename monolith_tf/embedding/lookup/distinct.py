"""The distinct ids of a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from monolith_tf.ids import HASH_BITS
from monolith_tf.types import Tensor

_MAX_BLOCKS = 32


class Distinct(NamedTuple):
    """A batch's ids of one group.

    Attributes:
      ids: Each once, `[unique]`, int64.
      inverse: Index in `ids` of each occurrence, `[occurrences]`, int32.
      counts: Occurrences of each, `[unique]`, int64; `()` if not requested.
    """

    ids: Tensor
    inverse: Tensor
    counts: Tensor


def distinct(
    pieces: Sequence[Tensor], slots: Sequence[int], *, with_counts: bool
) -> Distinct:
    """Collects distinct ids in a bounded number of operations.

    Ids of different slots differ, so blocks of slots are searched separately. This is
    faster: the hash table of a block stays in the cache.

    Args:
      pieces: Ids, each `[n]`, int64.
      slots: The slot that the ids of each piece should have.
      with_counts: Whether to count occurrences.
    """
    blocks = _blocks(slots)
    found = [
        _unique(_joined([pieces[i] for i in block]), with_counts) for block in blocks
    ]
    if len(found) == 1:
        return found[0]
    starts = tf.cumsum(tf.stack([tf.size(f.ids) for f in found]), exclusive=True)
    inverses: list[Tensor] = [None] * len(pieces)
    for block, one, start in zip(blocks, found, tf.unstack(starts), strict=True):
        sizes = [tf.size(pieces[i]) for i in block]
        parts = tf.split(one.inverse + start, sizes, num=len(block))
        for i, part in zip(block, parts, strict=True):
            inverses[i] = part
    together = Distinct(
        tf.concat([f.ids for f in found], axis=0),
        tf.concat(inverses, axis=0),
        tf.concat([f.counts for f in found], axis=0) if with_counts else (),
    )
    # Only ids of a foreign slot can be in two blocks, and need a merge.
    bounds = [(slots[block[0]], slots[block[-1]]) for block in blocks]
    return tf.cond(
        _are_within([f.ids for f in found], bounds),
        lambda: together,
        lambda: _merged(together),
    )


def _blocks(slots: Sequence[int]) -> list[list[int]]:
    """Returns the indices of the pieces, in blocks of whole slots, ascending."""
    order = sorted(range(len(slots)), key=lambda i: slots[i])
    blocks: list[list[int]] = []
    for done, i in enumerate(order):
        is_due = done >= len(order) * len(blocks) / _MAX_BLOCKS
        if is_due and (not blocks or slots[blocks[-1][-1]] != slots[i]):
            blocks.append([])
        blocks[-1].append(i)
    return blocks


def _unique(ids: Tensor, with_counts: bool) -> Distinct:
    if not with_counts:
        unique, inverse = tf.unique(ids)
        return Distinct(unique, inverse, ())
    unique, inverse, counts = tf.unique_with_counts(ids)
    return Distinct(unique, inverse, tf.cast(counts, tf.int64))


def _are_within(blocks: Sequence[Tensor], bounds: Sequence[tuple[int, int]]) -> Tensor:
    """Returns whether all ids of every block are in its range of slots."""
    least = tf.stack([tf.reduce_min(ids) for ids in blocks])
    most = tf.stack([tf.reduce_max(ids) for ids in blocks])
    lowest = tf.constant([first << HASH_BITS for first, _ in bounds], tf.int64)
    # Inclusive: the id after the last slot may not fit into an int64.
    highest = [(last << HASH_BITS) + (1 << HASH_BITS) - 1 for _, last in bounds]
    return tf.reduce_all((least >= lowest) & (most <= tf.constant(highest, tf.int64)))


def _merged(found: Distinct) -> Distinct:
    """Merges ids that are in several blocks."""
    ids, places = tf.unique(found.ids)
    counts = found.counts
    if not isinstance(counts, tuple):
        counts = tf.math.unsorted_segment_sum(counts, places, tf.size(ids))
    return Distinct(ids, tf.gather(places, found.inverse), counts)


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    return tf.concat(pieces, axis=0) if len(pieces) > 1 else pieces[0]
