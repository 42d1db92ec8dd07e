"""A split by time: each user's latest ratings are test, those before them valid."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

SPLITS = ("train", "valid", "test")


def ranks(users: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts by user, then time; of several at once the first in the file is first.

    Returns:
      The order, and for each place in it how many places of this user are before it.
    """
    order = np.lexsort((times, users))
    _, starts, counts = np.unique(users[order], return_index=True, return_counts=True)
    return order, np.arange(len(order)) - np.repeat(starts, counts)


def split_numbers(places: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Returns for each place of `ranks` which of `SPLITS` it belongs to.

    Args:
      places: How many places of this user are before it.
      shares: Of a user's ratings, one of each split; they sum to 1.
    """
    starts = np.flatnonzero(places == 0)
    counts = np.diff(np.append(starts, len(places)))
    # Adding a little keeps 0.8 * 5 from being less than 4.
    edges = np.cumsum(shares)[:-1, np.newaxis] * counts + 1e-6  # [splits - 1, users]
    ends = np.repeat(np.floor(edges), counts, axis=1)
    return (places >= ends).sum(axis=0)


def histories(
    items: np.ndarray, places: np.ndarray, start: int, end: int, length: int
) -> pa.Array:
    """Returns the last `length` items before each place, oldest first.

    Args:
      items: In the order of `ranks`.
      places: How many places of this user are before each.
      start: First place asked for.
      end: The place behind the last one.
      length: Items of a history, at most.
    """
    ends = np.arange(start, end)
    return last(pa.array(items), ends - places[start:end], ends, length)


def last(
    values: pa.Array, starts: np.ndarray, ends: np.ndarray, length: int
) -> pa.ListArray:
    """Returns for each range of places its last values, `length` of them at most.

    Args:
      values: In the order in which they came.
      starts: First place of each range.
      ends: The place behind each range's last one.
      length: Values of a list, at most.
    """
    lengths = np.minimum(ends - starts, length)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    places = np.repeat(ends - lengths - offsets[:-1], lengths) + np.arange(offsets[-1])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), values.take(pa.array(places))
    )


def folded(ids: np.ndarray, num_buckets: int) -> np.ndarray:
    """Returns for each id the MD5 sum of its digits modulo `num_buckets`."""
    known, codes = np.unique(ids, return_inverse=True)
    sums = [int(hashlib.md5(str(id_).encode()).hexdigest(), 16) for id_ in known]
    return np.array([sum_ % num_buckets for sum_ in sums], np.int64)[codes]
