"""The rows of one split, piece by piece, cleaned and counted."""

from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from absl import logging

from monolith_tf.data import arrow
from monolith_tf.data import exiting
from monolith_tf.data import order
from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import Split
from monolith_tf.features.columns import ColumnType


class SplitRows:
    """Reads pieces and keeps the rows that are good and belong to the split.

    Attributes:
      files: The files of the split, in order.
      pieces: The pieces of all files, each with the place of its file in `files`.
      columns: The columns that are read.
    """

    def __init__(
        self,
        spec: DataSpec,
        reader: Reader,
        split: Split,
        columns: Mapping[str, ColumnType],
        seed: int,
        keys: Mapping[str, ColumnType] | None = None,
    ) -> None:
        self.columns = dict(columns)
        self._keys = dict(keys or {})
        self._reader = reader
        self._skips = spec.on_bad_row == "skip"
        self._fraction = spec.validation_fraction if split != "test" else 0.0
        self._held_out = split == "eval"
        self._seed = seed
        self.files = reader.files(spec.file_split(split))
        self.pieces: list[tuple[int, Piece]] = [
            (number, piece)
            for number, file in enumerate(self.files)
            for piece in reader.pieces(file)
        ]
        self._counts: dict[int, int] = {}
        self._bad: dict[int, int] = {}

    @property
    def num_bad_rows(self) -> int:
        """Rows left out so far, each counted once."""
        return sum(self._bad.values())

    def count(self, index: int) -> int:
        """Returns the rows of a piece, reading it where nothing else tells."""
        known = self.known_count(index)
        if known is not None:
            return known
        number, piece = self.pieces[index]
        if self._skips:
            for _ in self.read(index):
                pass
            return self._counts[index]
        rows = piece.first_row + np.arange(self._reader.count(piece))
        self._counts[index] = int(self._members(number, rows).sum())
        return self._counts[index]

    def known_count(self, index: int) -> int | None:
        """Returns the rows of a piece if no row has to be read for it."""
        number, piece = self.pieces[index]
        if index not in self._counts and piece.num_rows is not None:
            if self._skips and self._reader.may_have_bad_rows(piece, self.columns):
                return None
            rows = piece.first_row + np.arange(piece.num_rows)
            self._counts[index] = int(self._members(number, rows).sum())
        return self._counts.get(index)

    def read(self, index: int, epoch: int = 0) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yields the clean rows of a piece with their numbers in the file.

        Args:
          index: Which piece.
          epoch: Makes no difference here.

        Raises:
          ValueError: At a bad row, unless bad rows are to be skipped.
        """
        del epoch
        for table, rows, _ in self.read_with_keys(index):
            yield table, rows

    def read_with_keys(
        self, index: int
    ) -> Iterator[tuple[pa.Table, np.ndarray, pa.Table]]:
        """Yields what `read` does, and the key columns, which stay as they were read.

        A key without a value is null, and makes no row bad.

        Args:
          index: Which piece.

        Raises:
          ValueError: As `read`.
        """
        number, piece = self.pieces[index]
        num_rows = num_bad = 0
        first = ""
        for block in self._reader.read(piece, {**self._keys, **self.columns}):
            exiting.check()
            table, rows, keys, bad = self._clean(number, block)
            if bad and not self._skips:
                raise ValueError(
                    f"{_place(piece.file, *bad[0])} Mend the row, declare a `default`, "
                    "or set `data.on_bad_row` to skip."
                )
            first = first or (_place(piece.file, *bad[0]) if bad else "")
            num_rows += len(rows)
            num_bad += len(bad)
            if len(rows):
                yield table, rows, keys
        if num_bad and index not in self._bad:
            logging.warning("left out %d bad rows; the first: %s", num_bad, first)
        self._counts[index] = num_rows
        self._bad[index] = num_bad

    def _clean(
        self, number: int, block: Block
    ) -> tuple[pa.Table, np.ndarray, pa.Table, list[tuple[int, str]]]:
        """Returns a block's good rows, their numbers and keys; then its bad rows."""
        read, rows = block.table, block.rows
        bad_rows = np.array([bad.row for bad in block.bad], np.int64)
        ours = self._members(number, bad_rows)
        bad = [(b.row, b.reason) for b, our in zip(block.bad, ours, strict=True) if our]
        member = self._members(number, rows)
        if not member.all():
            read, rows = read.filter(pa.array(member)), rows[member]
        try:
            table, problems = arrow.clean(read, self.columns)
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"{self.files[number]}: {error}") from error
        keys = read.select(list(self._keys))
        fine = np.ones(len(rows), bool)
        for mask, reason in problems:
            bad += [(int(row), reason) for row in rows[mask & fine]]
            fine &= ~mask
        if not fine.all():
            table, rows = table.filter(pa.array(fine)), rows[fine]
            keys = keys.filter(pa.array(fine))
        return table, rows, keys, sorted(bad)

    def _members(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Returns which rows of a file belong to the split, bool [rows]."""
        if not self._fraction:
            return np.ones(len(rows), bool)
        key = (self._seed, order.HELD_OUT, number)
        held_out = order.held_out(rows, self._fraction, *key)
        return held_out if self._held_out else ~held_out


def _place(file: str, row: int, reason: str) -> str:
    return f"{file}: row {row} (counting from 0): {reason}."
