"""Cuts rows in reading order into windows, and shuffles each window."""

import dataclasses
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from monolith_tf.data import order
from monolith_tf.data.negatives import SampledRows
from monolith_tf.data.rows import SplitRows


@dataclasses.dataclass(frozen=True)
class Window:
    """Consecutive rows of an epoch, in batch order.

    Attributes:
      index: Place of the window in its epoch.
      table: The clean columns, each in one chunk.
      files: Place of each row's file among the split's files, int32 [rows].
      rows: Number of each row in its file, int64 [rows].
      times: Event time of each row, in milliseconds since 1970, int64 [rows]; -1 where
        a row has none. None for files.
    """

    index: int
    table: pa.Table
    files: np.ndarray
    rows: np.ndarray
    times: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Cut:
    """How to read a resumed epoch that began with other batches or another order.

    Attributes:
      shift: Batch `k` of the epoch begins at row `k * batch_size + shift`.
      order: The order of its rows, as in `Source.identity`; None for the order of all
        other epochs.
    """

    shift: int = 0
    order: tuple[int, ...] | None = None

    def to_numbers(self) -> list[int]:
        """Returns three integers for `from_numbers`."""
        if self.order is None:
            return [self.shift, 0, -1]
        return [self.shift, *(self.order or (0, 0))]

    @classmethod
    def from_numbers(cls, numbers: Sequence[int]) -> "Cut":
        """Returns the cut from the numbers of `to_numbers`."""
        shift, seed, window_rows = numbers
        if window_rows < 0:
            return cls(shift)
        return cls(shift, (seed, window_rows) if window_rows else ())


def recut(
    windows: Iterable[Window], first: int, skip: int, size: int
) -> Iterator[Window]:
    """Yields the rows of windows in windows of another size.

    Args:
      windows: Consecutive windows of one epoch.
      first: Index of the first one to yield.
      skip: Rows to skip before it.
      size: Rows per window; the last one may have fewer.
    """
    held = _Held()
    index = first
    for window in windows:
        dropped = min(skip, len(window.rows))
        skip -= dropped
        rest = slice(dropped, None)
        held.add(window.table.slice(dropped), window.files[rest], window.rows[rest])
        while held.num_rows >= size:
            yield held.cut(index, size, None)
            index += 1
    if held.num_rows:
        yield held.cut(index, held.num_rows, None)


def epoch_windows(
    split: SplitRows | SampledRows,
    *,
    epoch: int,
    first: int,
    size: int,
    seed: int,
    shuffle: bool,
) -> Iterator[Window]:
    """Yields the windows of one epoch.

    A window depends only on the seed, the epoch and its index, not on the window at
    which reading starts.

    Args:
      split: The rows.
      epoch: Number of the epoch, from 0.
      first: Index of the first window to yield.
      size: Rows per window; the last one of the epoch may have fewer.
      seed: The job's seed.
      shuffle: Whether to permute pieces, and rows within windows.
    """
    num_pieces = len(split.pieces)
    pieces = np.arange(num_pieces)
    if shuffle:
        pieces = order.permutation(num_pieces, seed, order.PIECES, epoch)
    skip = first * size
    index = first
    held = _Held()
    for piece in pieces.tolist():
        number, _ = split.pieces[piece]
        known = split.known_count(piece)
        if known is not None and known <= skip:
            skip -= known
            continue
        for table, rows in split.read(piece, epoch):
            dropped = min(skip, len(rows))
            skip -= dropped
            rows = rows[dropped:]
            files = np.full(len(rows), number, np.int32)
            held.add(table.slice(dropped), files, rows)
            while held.num_rows >= size:
                yield held.cut(index, size, _draw(shuffle, seed, epoch, index))
                index += 1
    if held.num_rows:
        yield held.cut(index, held.num_rows, _draw(shuffle, seed, epoch, index))


def _draw(shuffle: bool, *key: int) -> tuple[int, ...] | None:
    """Returns what a window's order depends on; None keeps the file order."""
    seed, epoch, index = key
    return (seed, order.WINDOWS, epoch, index) if shuffle else None


class _Held:
    """Rows that were read but not yet yielded."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._files: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self.num_rows = 0

    def add(self, table: pa.Table, files: np.ndarray, rows: np.ndarray) -> None:
        """Adds rows, with the positions of their files and their numbers in them."""
        self._tables.append(table)
        self._files.append(files)
        self._rows.append(rows)
        self.num_rows += len(rows)

    def cut(self, index: int, size: int, key: tuple[int, ...] | None) -> Window:
        """Removes and returns the first `size` rows, in the order drawn by `key`."""
        table = pa.concat_tables(self._tables)
        files = np.concatenate(self._files)
        rows = np.concatenate(self._rows)
        self._tables = [table.slice(size)]
        self._files, self._rows = [files[size:]], [rows[size:]]
        self.num_rows -= size
        table = table.slice(0, size).unify_dictionaries().combine_chunks()
        files, rows = files[:size], rows[:size]
        if key is not None:
            drawn = order.permutation(size, *key)
            table, files, rows = table.take(drawn), files[drawn], rows[drawn]
        return Window(index, table, files, rows)
