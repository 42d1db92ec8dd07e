"""One split of the data for the trainer: batches from any position."""

import itertools
import zlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import NoReturn

import numpy as np

from monolith_tf.data import file_marks
from monolith_tf.data import formats
from monolith_tf.data import negatives
from monolith_tf.data.batch_source import RowPlace
from monolith_tf.data.batch_source import RowRange
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import first_with_rows
from monolith_tf.data.rows import Filled
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import Split
from monolith_tf.data.windows import Cut
from monolith_tf.data.windows import Window
from monolith_tf.data.windows import epoch_windows
from monolith_tf.data.windows import recut
from monolith_tf.features.columns import ColumnType
from monolith_tf.types import JsonDict

if TYPE_CHECKING:
    import tensorflow as tf

_MIN_WINDOW_ROWS = 16_384


class Source:
    """The batches of one split, in an order fixed by seed, epoch and position.

    Made by `open_split`. A position is (epoch, batch within the epoch). A dataset that
    starts at a position returns the same batches as any other from there on. The
    position is the only state, so a checkpoint holds only that.

    Attributes:
      failure: The error that ended a dataset's iteration, or None. TensorFlow wraps it
        in its own error, with more text around it.
    """

    def __init__(
        self,
        spec: DataSpec,
        reader: Reader,
        split: Split,
        columns: Mapping[str, ColumnType],
        seed: int,
    ) -> None:
        self._spec = spec
        self._reader = reader
        self._split = split
        self._seed = seed
        self._rows = negatives.split_rows(spec, reader, split, columns, seed)
        self.failure: Exception | None = None

    @property
    def files(self) -> list[str]:
        """The files of the split, in order."""
        return list(self._rows.files)

    @property
    def marks(self) -> file_marks.Marks:
        """What the files were when the source was opened."""
        return self._rows.marks

    @property
    def columns(self) -> dict[str, ColumnType]:
        """The columns that are read."""
        return dict(self._rows.columns)

    @property
    def bad_rows(self) -> int:
        """Bad rows skipped so far, each counted once."""
        return self._rows.num_bad_rows

    @property
    def filled(self) -> Filled:
        """Which rows read so far got a default; see `SplitRows.filled`."""
        return self._rows.filled

    def counts(self) -> dict[str, int]:
        """Returns name -> count of problems found in the data so far.

        These are `bad_rows` and `empty_files`, which were skipped, and for each column
        with a default the rows that got it, `defaults/<column>`. A row counts once,
        even if it is read several times.
        """
        return self._rows.counts()

    def schema(self) -> dict[str, ColumnType]:
        """Returns the type of every column of the first file that has rows."""
        return self._reader.schema(self.first_file())

    def is_unsigned(self, file: str, column: str) -> bool:
        """Returns whether a column of a file holds unsigned integers.

        In batches, those of at least 2^63 are negative integers with the same bits.
        """
        found = self._reader.schema(file).get(column)
        return found is not None and found.is_unsigned

    def first_file(self) -> str:
        """Returns the first file that has rows, or the first file if none has.

        Raises:
          ValueError: If no file has rows, or a text file before it has none, unless bad
            rows are skipped.
        """
        split = self._spec.file_split(self._split)
        return first_with_rows(self._reader, split, self._rows.files)

    def num_rows(self) -> int:
        """Returns the number of good rows of the split.

        Parquet files are counted by their metadata if bad rows are an error or cannot
        occur; all other files are read once.
        """
        return sum(self._rows.count(index) for index in range(len(self._rows.pieces)))

    def identity(self, batch_size: int | None = None) -> JsonDict:
        """Returns the data to which positions refer, as JSON.

        `files` as `file_marks.Marks`, `rows` of an epoch, and in `order` what else the
        order of rows depends on; it is empty if they are read in file order.

        Args:
          batch_size: Rows per batch; None takes the config's.
        """
        return {
            "files": list(self._rows.marks),
            "rows": self.num_rows(),
            "order": list(self._order(batch_size or self._spec.batch_size, None)),
        }

    def files_digest(self) -> int:
        """Returns a digest, at least 0, of the files when they were opened.

        It does not depend on their folders.
        """
        found = [(mark.get("size"), mark.get("digest")) for mark in self._rows.marks]
        return zlib.crc32(repr(found).encode())

    def batches_per_epoch(self, batch_size: int | None = None) -> int:
        """Returns the number of batches of an epoch, including a smaller last one.

        Raises:
          ValueError: If the split has no rows.
        """
        num_rows = self.num_rows()
        if not num_rows:
            self._raise_empty()
        return -(-num_rows // (batch_size or self._spec.batch_size))

    def dataset(
        self,
        epoch_start: int = 0,
        batch_start: int = 0,
        num_epochs: int | None = 1,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        string_codes: bool = False,
        cut: Cut | None = None,
    ) -> "tf.data.Dataset":
        """Returns the batches from a position on.

        Args:
          epoch_start: Epoch of the first batch, from 0.
          batch_start: Place of the first batch in that epoch, from 0.
          num_epochs: Epochs to return, including that of the first batch; None never
            ends.
          batch_size: Rows per batch; None takes the config's.
          shuffle: Whether to shuffle, if the config has a shuffle buffer; None shuffles
            only the train split.
          string_codes: Whether strings come as `features.StringCodes`, which avoids
            copying and hashing them batch by batch.
          cut: How the first of these epochs is cut into batches; None cuts it as all
            others.

        Returns:
          A dataset of dicts of raw columns: `[batch]` tensors, ragged for lists.

        Raises:
          ValueError: If the source was opened without columns.
        """
        from monolith_tf.data import pipeline

        if not self._rows.columns:
            raise ValueError("`columns` must name at least one column. Received: none.")
        batch_size = batch_size or self._spec.batch_size

        def windows() -> Iterator[tuple[Window, int]]:
            self.failure = None
            try:
                yield from self.windows(
                    epoch_start,
                    batch_start,
                    num_epochs,
                    batch_size=batch_size,
                    shuffle=shuffle,
                    cut=cut,
                )
            except Exception as error:
                self.failure = error
                raise

        columns = self._rows.columns
        return pipeline.dataset(windows, columns, batch_size, string_codes)

    def rows_of(
        self,
        epoch: int,
        batch: int,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        cut: Cut | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns where each row of a batch comes from; reads its window again.

        Args:
          epoch: Epoch of the batch, from 0.
          batch: Place of the batch in the epoch, from 0.
          batch_size: As given to `dataset`.
          shuffle: As given to `dataset`.
          cut: As given to `dataset`.

        Returns:
          Place of the row's file in `files`, int32 [batch], and number of the row in
          it, int64 [batch].

        Raises:
          ValueError: If the epoch has no such batch.
        """
        batch_size = batch_size or self._spec.batch_size
        for window, first in self.windows(
            epoch, batch, batch_size=batch_size, shuffle=shuffle, cut=cut
        ):
            rows = slice(first * batch_size, (first + 1) * batch_size)
            if len(window.rows[rows]):
                return window.files[rows], window.rows[rows]
        raise ValueError(
            f"`batch` must be one of the epoch's {self.batches_per_epoch(batch_size)}. "
            f"Received: batch={batch}."
        )

    def locate(
        self,
        epoch: int,
        batch: int,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        cut: Cut | None = None,
    ) -> list[RowRange]:
        """Returns the files and row ranges of a batch; arguments as for `rows_of`."""
        files, rows = self.rows_of(
            epoch, batch, batch_size=batch_size, shuffle=shuffle, cut=cut
        )
        ranges = []
        for number in np.unique(files).tolist():
            own = rows[files == number]
            low, high = int(own.min()), int(own.max())
            ranges.append(RowRange(self._rows.files[number], low, high, len(own)))
        return ranges

    def row_place(
        self, epoch: int, batch: int, row: int, *, cut: Cut | None = None
    ) -> RowPlace:
        """Returns where a row of a batch comes from; arguments as for `rows_of`."""
        files, rows = self.rows_of(epoch, batch, cut=cut)
        file = self._rows.files[files[row]]
        return RowPlace(file, f"{file}: row {rows[row]} (counting from 0)")

    def windows(
        self,
        epoch_start: int = 0,
        batch_start: int = 0,
        num_epochs: int | None = 1,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        cut: Cut | None = None,
    ) -> Iterator[tuple[Window, int]]:
        """Yields whole windows of rows, as Arrow tables, without TensorFlow.

        Args:
          epoch_start: As for `dataset`, like all other arguments.
          batch_start: Place of the first batch in the epoch.
          num_epochs: Epochs to return.
          batch_size: Rows per batch.
          shuffle: Whether to shuffle.
          cut: How the first epoch is cut.

        Yields:
          A window, and how many of its batches come before the requested position.

        Raises:
          ValueError: If a row cannot be read, or an epoch has no rows.
        """
        batch_size = batch_size or self._spec.batch_size
        batches = self.window_batches(batch_size, shuffle)
        order = self._order(batch_size, shuffle)
        cut = cut or Cut()
        epochs: Iterable[int] = itertools.count(epoch_start)
        if num_epochs is not None:
            epochs = range(epoch_start, epoch_start + num_epochs)
        for epoch in epochs:
            # A cut's batches begin `shift` rows later than the multiples of a batch.
            row = batch_start * batch_size + cut.shift
            batch_start, shift = divmod(row, batch_size)
            empty = row == 0
            first = batch_start // batches
            for window in self._cut_windows(
                epoch,
                first,
                shift,
                batches * batch_size,
                order if cut.order is None else cut.order,
            ):
                empty = False
                yield window, batch_start - first * batches
                batch_start, first = 0, 0
            if empty:
                self._raise_empty()
            batch_start, cut = 0, Cut()

    def _cut_windows(
        self, epoch: int, first: int, shift: int, size: int, order: tuple[int, ...]
    ) -> Iterator[Window]:
        """Yields windows of `size` rows, of which window 0 begins at row `shift`."""
        seed, order_rows = order or (self._seed, size)
        row = first * size + shift
        windows = epoch_windows(
            self._rows,
            epoch=epoch,
            first=row // order_rows,
            size=order_rows,
            seed=seed,
            shuffle=bool(order),
        )
        if order_rows == size and not shift:
            return windows
        return recut(windows, first, row % order_rows, size)

    def _order(self, batch_size: int, shuffle: bool | None) -> tuple[int, ...]:
        """Returns the seed and the rows of a window that is shuffled; else nothing."""
        if not self._shuffle_buffer(shuffle):
            return ()
        return self._seed, self.window_batches(batch_size, shuffle) * batch_size

    def window_batches(
        self, batch_size: int | None = None, shuffle: bool | None = None
    ) -> int:
        """Returns the batches per window; only an epoch's last one may have fewer."""
        rows = self._shuffle_buffer(shuffle) or _MIN_WINDOW_ROWS
        return -(-rows // (batch_size or self._spec.batch_size))

    def _shuffle_buffer(self, shuffle: bool | None) -> int:
        if shuffle is None:
            shuffle = self._split == "train"
        return self._spec.shuffle_buffer if shuffle else 0

    def _raise_empty(self) -> NoReturn:
        raise ValueError(
            f"The split `{self._split}` has no rows. Its files: "
            f"{', '.join(self._rows.files[:5])}."
        )


def open_split(
    spec: DataSpec,
    split: Split,
    columns: Mapping[str, ColumnType],
    seed: int = 0,
) -> Source:
    """Opens one split of the data.

    Args:
      spec: The description of the data.
      split: Which split.
      columns: The columns to read, as returned by `features.required_columns`.
      seed: Seed of the shuffling and of the held-out rows.

    Raises:
      ValueError: If a file or a column is missing, or a column's type does not fit.
    """
    reader = formats.make_reader(spec, split)
    source = Source(spec, reader, split, columns, seed)
    formats.check_file(reader, source.first_file(), spec.in_files(split, columns))
    return source
