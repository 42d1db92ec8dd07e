"""Writing the rows of a read-only store, chunk by chunk, into a SavedModel's files.

What `tf.saved_model.save` wrote of an empty store is written anew with its rows: each
chunk as slices of tensors into a file of its own, whose indices are then merged. A
reader sees whole tensors.
"""

import glob
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.checkpoint import CHUNK_BYTES
from monolith_tf.embedding.frozen import FrozenStore
from monolith_tf.embedding.frozen import Rows
from monolith_tf.embedding.frozen_group import FrozenGroup
from monolith_tf.types import Tensor


class Survey(NamedTuple):
    """What a first look at the rows found.

    Attributes:
      rows: Rows of each group that are not zero as they are stored.
      dropped: Rows of each group that are, which reading an unknown id gives anyway.
      wanted: The rows of the ids asked for.
    """

    rows: list[int]
    dropped: list[int]
    wanted: list[tuple[np.ndarray, np.ndarray]]


def survey(store: FrozenStore, rows: Rows, wanted: np.ndarray) -> Survey:
    """Counts rows, and picks some.

    Args:
      store: Where they will belong.
      rows: The rows.
      wanted: Ids whose rows are to be returned.
    """
    found = Survey([0] * len(store.groups), [0] * len(store.groups), [])
    wanted = np.unique(wanted)
    for place, ids, weights in store.by_group(rows):
        kept = int(_is_kept(store.groups[place].compress(weights)).sum())
        found.rows[place] += kept
        found.dropped[place] += len(ids) - kept
        if len(wanted):
            nearest = np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)
            mine = wanted[nearest] == ids
            if mine.any():
                found.wanted.append((ids[mine], weights[mine]))
    return found


def write(
    store: FrozenStore,
    prefix: str,
    key: str,
    rows: Callable[[], Rows],
    counted: Survey,
    *,
    spare_rows: int = 0,
) -> None:
    """Puts rows into the files of a SavedModel that was saved with an empty store.

    Memory is bounded by a chunk. A row that was not there when they were counted may be
    left out.

    Args:
      store: The store that was saved.
      prefix: Of the files, `<SavedModel>/variables/variables`.
      key: Path of the store in the object that was saved.
      rows: Gives the rows, as it gave them to `survey`.
      counted: What that found.
      spare_rows: Rows of each group that are written as zeros, for later.
    """
    reader = tf.train.load_checkpoint(prefix)
    names = [_names(f"{key}/groups/{i}", g) for i, g in enumerate(store.groups)]
    ours = {name for group in names for name in group}
    pieces = _Pieces(prefix + ".whole")
    for name in reader.get_variable_to_shape_map():
        if name not in ours:
            pieces.add(name, tf.convert_to_tensor(reader.get_tensor(name)))
    writers = [
        _GroupWriter(group, keys, pieces, number, spare_rows)
        for group, keys, number in zip(store.groups, names, counted.rows, strict=True)
    ]
    for place, ids, weights in store.by_group(rows()):
        writers[place].add(store.keys(ids).numpy(), weights)
    for writer in writers:
        writer.close()
    for path in glob.glob(glob.escape(prefix) + ".*"):
        if not path.startswith(prefix + ".whole"):
            os.remove(path)
    pieces.close(prefix)


def _names(key: str, group: FrozenGroup) -> list[str]:
    """Names of a group's tensors: index keys, index values, then the slices."""
    slices = [
        f"{key}/slices/{i}/.ATTRIBUTES/VARIABLE_VALUE" for i in range(len(group.slices))
    ]
    index = [f"{key}/index/.ATTRIBUTES/table-{what}" for what in ("keys", "values")]
    return index + slices


def _is_kept(stored: list[Tensor]) -> np.ndarray:
    """Which rows are not zero as they are stored."""
    return np.logical_or.reduce([(values.numpy() != 0).any(1) for values in stored])


class _GroupWriter:
    """Writes the rows of one group, whose number is known, one after the other."""

    def __init__(
        self,
        group: FrozenGroup,
        names: list[str],
        pieces: "_Pieces",
        num_rows: int,
        spare_rows: int,
    ) -> None:
        self._group = group
        self._names = names
        self._pieces = pieces
        self._num_rows = num_rows
        self._end = 1 + num_rows + spare_rows
        self._next = 0
        self._write_zeros(1)  # Row 0.

    def add(self, keys: np.ndarray, weights: np.ndarray) -> None:
        """Adds rows, save those that are zero."""
        stored = self._group.compress(weights)
        kept = np.flatnonzero(_is_kept(stored))[: self._num_rows + 1 - self._next]
        self._write_keys(keys[kept])
        self._write([tf.gather(values, kept) for values in stored])

    def close(self) -> None:
        """Writes what is left: room without ids."""
        # Rows that went since they were counted leave keys that no id has.
        gone = self._num_rows + 1 - self._next
        self._write_keys(-1 - np.arange(gone))
        if not self._num_rows:
            for name in self._names[:2]:
                self._pieces.add(name, tf.zeros([0], tf.int64))
        size = max(1, CHUNK_BYTES // (4 * self._group.group.dim))
        while self._next < self._end:
            self._write_zeros(min(size, self._end - self._next))

    def _write_keys(self, keys: np.ndarray) -> None:
        if not len(keys):
            return
        numbers = tf.range(self._next, self._next + len(keys), dtype=tf.int64)
        for name, values in zip(
            self._names[:2], (tf.constant(keys), numbers), strict=True
        ):
            self._pieces.add(name, values, start=self._next - 1, total=self._num_rows)

    def _write_zeros(self, count: int) -> None:
        self._write(
            [
                tf.zeros([count, part.dim], variable.dtype)
                for part, variable in zip(
                    self._group.group.parts, self._group.slices, strict=True
                )
            ]
        )

    def _write(self, stored: list[Tensor]) -> None:
        count = len(stored[0])
        if count:
            for name, values in zip(self._names[2:], stored, strict=True):
                self._pieces.add(name, values, start=self._next, total=self._end)
        self._next += count


class _Pieces:
    """Collects tensors and slices of tensors, and writes them a chunk at a time."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._parts: list[str] = []
        self._held: list[tuple[str, str, Tensor]] = []
        self._bytes = 0

    def add(
        self, name: str, values: Tensor, *, start: int = 0, total: int | None = None
    ) -> None:
        """Adds a tensor, or entries from `start` of one with `total` of them."""
        where = ""
        if total is not None:
            shape = [total, *values.shape[1:]]
            bounds = [f"{start},{len(values)}", *["-"] * (len(shape) - 1)]
            where = f"{' '.join(map(str, shape))} {':'.join(bounds)}"
        self._held.append((name, where, values))
        self._bytes += values.dtype.size * int(tf.size(values))
        if self._bytes >= CHUNK_BYTES:
            self._flush()

    def close(self, prefix: str) -> None:
        """Writes the rest, and makes one of all parts."""
        self._flush()
        tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=self._parts,
            destination_prefix=prefix,
            delete_old_dirs=False,
        )

    def _flush(self) -> None:
        if not self._held:
            return
        self._parts.append(f"{self._prefix}-{len(self._parts):05d}")
        names, where, values = zip(*self._held, strict=True)
        tf.raw_ops.SaveV2(
            prefix=self._parts[-1],
            tensor_names=list(names),
            shape_and_slices=list(where),
            tensors=list(values),
        )
        self._held.clear()
        self._bytes = 0
