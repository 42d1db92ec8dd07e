"""Writes the rows of a read-only store, in chunks, into a SavedModel's files.

`tf.saved_model.save` saves an empty store. This module rewrites its variables with the
rows: it writes each chunk as slices of tensors to a separate file, then merges the
files' indices. A reader sees whole tensors.
"""

import glob
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.frozen.group import FrozenGroup
from monolith_tf.embedding.frozen.index import HashIndex
from monolith_tf.embedding.frozen.index import Places
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.embedding.frozen.store import Rows
from monolith_tf.embedding.frozen.survey import Survey
from monolith_tf.embedding.frozen.survey import is_kept
from monolith_tf.embedding.saved.write import CHUNK_BYTES
from monolith_tf.types import Tensor

_VALUE = ".ATTRIBUTES/VARIABLE_VALUE"


def write(
    store: FrozenStore,
    prefix: str,
    key: str,
    rows: Callable[[], Rows],
    counted: Survey,
    *,
    spare_rows: int = 0,
) -> None:
    """Writes rows into the files of a SavedModel that was saved with an empty store.

    Needs memory for one chunk. Rows added since the survey may be left out.

    Args:
      store: The store that was saved.
      prefix: Prefix of the files, `<SavedModel>/variables/variables`.
      key: Path of the store in the saved object.
      rows: Returns the rows that were given to `survey.survey`.
      counted: The result of that survey.
      spare_rows: Rows of zeros to append to each group, for later inserts.
    """
    reader = tf.train.load_checkpoint(prefix)
    pieces = _Pieces(prefix + ".whole")
    writers = [
        _GroupWriter(
            f"{key}/groups/{i}", group, pieces, counted.rows(group.group), spare_rows
        )
        for i, group in enumerate(store.groups)
    ]
    ours = {name for writer in writers for name in writer.names}
    for name in reader.get_variable_to_shape_map():
        if name not in ours:
            pieces.add(name, tf.convert_to_tensor(reader.get_tensor(name)))
    for place, ids, weights in store.by_group(rows()):
        keys = store.keys(store.groups[place], ids).numpy()
        writers[place].add(keys, weights)
    for writer in writers:
        writer.close()
    for path in glob.glob(glob.escape(prefix) + ".*"):
        if not path.startswith(prefix + ".whole"):
            os.remove(path)
    pieces.close(prefix)


class _HashWriter:
    """Writes a hash index of a known number of keys, in the order of the rows."""

    def __init__(
        self, key: str, index: HashIndex, pieces: "_Pieces", size: int
    ) -> None:
        del index
        self._last = (np.zeros([1], np.int64), 1)
        self.names = [f"{key}/table/.ATTRIBUTES/table-{x}" for x in ("keys", "values")]
        self._pieces = pieces
        self._size = size
        self._next = 0

    def add(self, keys: np.ndarray) -> None:
        """Adds the keys of the next rows; numbering starts at row 1."""
        if not len(keys):
            return
        end = self._next + len(keys)
        self._write(keys, tf.range(self._next + 1, end + 1, dtype=tf.int64))
        self._last = keys[-1:], end

    def _write(self, keys: np.ndarray, numbers: Tensor) -> None:
        end = self._next + len(keys)
        for name, values in zip(self.names, (tf.constant(keys), numbers), strict=True):
            self._pieces.add(name, values, start=self._next, total=self._size)
        self._next = end

    def close(self) -> None:
        """Writes the remaining entries."""
        # The tensor's size was fixed by the survey. If rows have been removed since,
        # fill up with the last key: inserting it again changes nothing.
        missing = self._size - self._next
        if missing:
            key, number = self._last
            numbers = tf.fill([missing], tf.constant(number, tf.int64))
            self._write(np.repeat(key, missing), numbers)
        if not self._size:
            for name in self.names:
                self._pieces.add(name, tf.zeros([0], tf.int64))


class _PlacesWriter:
    """Writes the row numbers of small integers, once all are known."""

    def __init__(self, key: str, index: Places, pieces: "_Pieces", size: int) -> None:
        del size
        self.names = [f"{key}/numbers/{_VALUE}"]
        self._pieces = pieces
        self._numbers = np.zeros(index.numbers.shape, np.int32)
        self._next = 1

    def add(self, keys: np.ndarray) -> None:
        """Adds the keys of the next rows; numbering starts at row 1."""
        end = self._next + len(keys)
        self._numbers[keys] = np.arange(self._next, end)
        self._next = end

    def close(self) -> None:
        """Writes the numbers."""
        self._pieces.add(self.names[0], tf.constant(self._numbers))


class _GroupWriter:
    """Writes a known number of rows of one group, in order."""

    def __init__(
        self, key: str, group: FrozenGroup, pieces: "_Pieces", size: int, spare: int
    ) -> None:
        writer = _HashWriter if isinstance(group.index, HashIndex) else _PlacesWriter
        self._group = group
        self._pieces = pieces
        self._index = writer(f"{key}/index", group.index, pieces, size)
        self._names = [f"{key}/slices/{i}/{_VALUE}" for i in range(len(group.slices))]
        self.names = self._index.names + self._names
        self._num_rows = size
        self._end = 1 + size + spare
        self._next = 0
        self._write_zeros(1)  # Row 0.

    def add(self, keys: np.ndarray, weights: np.ndarray) -> None:
        """Adds rows, except those that are zero or that the index does not take."""
        stored = self._group.compress(weights)
        kept = np.flatnonzero(is_kept(stored) & self._group.index.takes(keys))
        kept = kept[: self._num_rows + 1 - self._next]
        self._index.add(keys[kept])
        self._write([tf.gather(values, kept) for values in stored])

    def close(self) -> None:
        """Writes the index, and zeros for the rows that are left."""
        self._index.close()
        size = max(1, CHUNK_BYTES // (4 * self._group.group.dim))
        while self._next < self._end:
            self._write_zeros(min(size, self._end - self._next))

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
            for name, values in zip(self._names, stored, strict=True):
                self._pieces.add(name, values, start=self._next, total=self._end)
        self._next += count


class _Pieces:
    """Collects tensors and slices of tensors, and writes them in chunks."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._parts: list[str] = []
        self._held: list[tuple[str, str, Tensor]] = []
        self._bytes = 0

    def add(
        self, name: str, values: Tensor, *, start: int = 0, total: int | None = None
    ) -> None:
        """Adds a tensor, or the entries from `start` on of one with `total` entries."""
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
        """Writes the rest, and merges all parts into one checkpoint."""
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
