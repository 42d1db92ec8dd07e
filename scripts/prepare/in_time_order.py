"""A split by time: each user's latest ratings are test, those before them valid."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

SPLITS = ("train", "valid", "test")


def ranks(users: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorts by user, then time; ties keep the file's order.

    Returns:
      The order, and for each position in it the number of earlier ones of this user.
    """
    order = np.lexsort((times, users))
    _, starts, counts = np.unique(users[order], return_index=True, return_counts=True)
    return order, np.arange(len(order)) - np.repeat(starts, counts)


def split_numbers(places: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Returns for each position of `ranks` the index of its split in `SPLITS`.

    Args:
      places: The number of earlier positions of this user.
      shares: The share of a user's ratings for each split; they sum to 1.
    """
    starts = np.flatnonzero(places == 0)
    counts = np.diff(np.append(starts, len(places)))
    # A small offset keeps rounding from making 0.8 * 5 less than 4.
    edges = np.cumsum(shares)[:-1, np.newaxis] * counts + 1e-6  # [splits - 1, users]
    ends = np.repeat(np.floor(edges), counts, axis=1)
    return (places >= ends).sum(axis=0)


def histories(
    items: np.ndarray, places: np.ndarray, start: int, end: int, length: int
) -> pa.Array:
    """Returns the last `length` items before each position, oldest first.

    Args:
      items: Items in the order of `ranks`.
      places: The number of earlier positions of the same user, for each.
      start: The first position.
      end: One past the last position.
      length: Maximum number of items in a history.
    """
    ends = np.arange(start, end)
    return last(pa.array(items), ends - places[start:end], ends, length)


def last(
    values: pa.Array, starts: np.ndarray, ends: np.ndarray, length: int
) -> pa.ListArray:
    """Returns the last values of each range, at most `length`.

    Args:
      values: Values in time order.
      starts: The first position of each range.
      ends: One past the last position of each range.
      length: Maximum number of values in a list.
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
