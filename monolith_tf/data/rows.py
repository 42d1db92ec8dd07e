"""Reads, cleans and counts the rows of one split, piece by piece."""

import collections
import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from absl import logging

from monolith_tf.data import cleaning
from monolith_tf.data import exiting
from monolith_tf.data import file_marks
from monolith_tf.data import order
from monolith_tf.data import rounding
from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import no_rows
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import Split
from monolith_tf.features.columns import ColumnType

Filled: TypeAlias = dict[tuple[int, int], dict[str, int]]
"""Rows that got a default: (piece, start of a block in it) -> column -> count."""


def count_filled(filled: Filled, columns: Mapping[str, ColumnType]) -> dict[str, int]:
    """Returns `defaults/<column>` -> number of rows that got its default."""
    return {
        f"defaults/{name}": sum(block.get(name, 0) for block in filled.values())
        for name, type_ in columns.items()
        if type_.default is not None
    }


class SplitRows:
    """Reads pieces and keeps the good rows that belong to the split.

    Attributes:
      files: The files of the split, in order.
      pieces: The pieces of all files, each with the place of its file in `files`.
      columns: The columns to read.
      filled: Numbers of rows read so far that got a default. They are the same for a
        block in every process, so entries of several processes can be merged.
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
        if split != "train":  # Means are computed only of the train split.
            self.columns = {
                name: dataclasses.replace(type_, refused=())
                for name, type_ in columns.items()
            }
        self._keys = dict(keys or {})
        self._reader = reader
        self._skips = spec.on_bad_row == "skip"
        self._fraction = spec.validation_fraction if split != "test" else 0.0
        self._held_out = split == "eval"
        self._seed = seed
        self._in_files = spec.file_split(split)
        self.files = reader.files(self._in_files)
        self._watch = file_marks.Watch(self.files)
        self.pieces: list[tuple[int, Piece]] = [
            (number, piece)
            for number, file in enumerate(self.files)
            for piece in reader.pieces(file)
        ]
        self._look = rounding.Look()
        self._counts: dict[int, int] = {}
        self._bad: dict[int, int] = {}
        self.filled: Filled = {}
        self._empty: set[str] = set()
        self._num_pieces = collections.Counter(piece.file for _, piece in self.pieces)
        for file in self.files:
            if not self._num_pieces[file]:
                self._pass_over(file)

    @property
    def num_bad_rows(self) -> int:
        """Bad rows skipped so far, each counted once."""
        return sum(self._bad.values())

    @property
    def marks(self) -> file_marks.Marks:
        """The marks of the files when they were opened."""
        return self._watch.marks()

    def counts(self) -> dict[str, int]:
        """Returns the counts so far; a row counts once.

        These are `bad_rows` and `empty_files`, which were skipped, and for each column
        with a default the rows that got it, `defaults/<column>`.
        """
        return {
            "bad_rows": self.num_bad_rows,
            "empty_files": len(self._empty),
            **count_filled(self.filled, self.columns),
        }

    def count(self, index: int) -> int:
        """Returns the number of rows of a piece; reads it only if needed."""
        known = self.known_count(index)
        if known is not None:
            return known
        number, piece = self.pieces[index]
        if self._skips:
            for _ in self.read(index):
                pass
            return self._counts[index]
        num_rows = self._reader.count(piece)
        self._watch.check(piece.file)
        if not num_rows and self._num_pieces[piece.file] == 1:
            self._pass_over(piece.file)
        rows = piece.first_row + np.arange(num_rows)
        self._counts[index] = int(self._members(number, rows).sum())
        return self._counts[index]

    def known_count(self, index: int) -> int | None:
        """Returns the number of rows of a piece, or None if it must be read first."""
        number, piece = self.pieces[index]
        if index not in self._counts and piece.num_rows is not None:
            if self._skips and self._reader.may_have_bad_rows(piece, self.columns):
                return None
            rows = piece.first_row + np.arange(piece.num_rows)
            self._counts[index] = int(self._members(number, rows).sum())
        return self._counts.get(index)

    def count_not_held_out(
        self, number: int, splits: Sequence[tuple[float, int, int]]
    ) -> tuple[int, int]:
        """Counts rows of a file in this split that other splits did not hold out.

        Args:
          number: Place of the file in `files`.
          splits: Fraction, seed, and place of the file, for each split.

        Returns:
          The number of rows that at least one of these splits did not hold out, and of
          all rows of the file in this split, both including bad rows.
        """
        num_trained = num_rows = 0
        for place, piece in self.pieces:
            if place != number:
                continue
            rows = piece.first_row + np.arange(self._reader.count(piece))
            rows = rows[self._members(number, rows)]
            trained = np.zeros(len(rows), bool)
            for fraction, seed, former in splits:
                key = (seed, order.HELD_OUT, former)
                trained |= ~order.held_out(rows, fraction, *key)
            num_trained += int(trained.sum())
            num_rows += len(rows)
        return num_trained, num_rows

    def read(self, index: int, epoch: int = 0) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Yields the clean rows of a piece with their numbers in the file.

        Args:
          index: Which piece.
          epoch: Not used.

        Raises:
          ValueError: At a bad row, or a file without rows, unless these are skipped.
        """
        del epoch
        for table, rows, _ in self.read_with_keys(index):
            yield table, rows

    def read_with_keys(
        self, index: int
    ) -> Iterator[tuple[pa.Table, np.ndarray, pa.Table]]:
        """Like `read`, but also yields the key columns as read.

        A missing key is null, and does not make a row bad.

        Args:
          index: Which piece.

        Raises:
          ValueError: See `read`.
        """
        number, piece = self.pieces[index]
        num_rows = num_bad = num_read = 0
        first = ""
        for block in self._blocks(piece):
            exiting.check()
            table, rows, keys, bad, filled = self._clean(number, block)
            if filled:
                self.filled[index, num_read] = filled
            num_read += len(block.rows) + len(block.bad)
            if bad and not self._skips:
                way_out = f"{bad[0].way_out} " if bad[0].way_out else ""
                raise ValueError(
                    f"{_place(piece.file, bad[0])} {way_out}Fix the row, declare a "
                    "`default`, or set `data.on_bad_row` to `skip`."
                )
            first = first or (_place(piece.file, bad[0]) if bad else "")
            num_rows += len(rows)
            num_bad += len(bad)
            if len(rows):
                yield table, rows, keys
        if not num_read and self._num_pieces[piece.file] == 1:
            self._pass_over(piece.file)
        if num_bad and index not in self._bad:
            logging.warning("Skipped %d bad rows; the first: %s", num_bad, first)
        self._counts[index] = num_rows
        self._bad[index] = num_bad

    def _blocks(self, piece: Piece) -> Iterator[Block]:
        """Yields the blocks of a piece; raises an error if the file changes."""
        self._watch.check(piece.file)
        try:
            for block in self._reader.read(piece, {**self._keys, **self.columns}):
                self._watch.check(piece.file)
                yield block
        except Exception:
            self._watch.check(piece.file)  # A changed file explains the error.
            raise
        self._watch.check(piece.file)

    def _pass_over(self, file: str) -> None:
        """Counts a file without rows; raises ValueError if it may not be skipped.

        Jobs that write one file per task may leave files without rows. A text file
        without rows is more likely truncated.
        """
        if file not in self._empty:
            self._empty.add(file)
            logging.warning("%s: has no rows; skipped.", file)
        is_all = len(self._empty) == len(self.files)
        if not self._skips and (self._reader.holds_text or is_all):
            raise ValueError(no_rows(file, self._in_files))

    def _clean(self, number: int, block: Block) -> cleaning.Clean:
        """Cleans the rows of a block that belong to the split.

        Args:
          number: The place of the file.
          block: The block.
        """
        bad_rows = np.array([bad.row for bad in block.bad], np.int64)
        ours = self._members(number, bad_rows)
        bad = [one for one, our in zip(block.bad, ours, strict=True) if our]
        read, rows = block.table, block.rows
        member = self._members(number, rows)
        if not member.all():
            read, rows = read.filter(pa.array(member)), rows[member]
        return cleaning.clean(
            Block(read, rows, tuple(bad)),
            self.columns,
            list(self._keys),
            self._look,
            self.files[number],
        )

    def _members(self, number: int, rows: np.ndarray) -> np.ndarray:
        """Returns which rows of a file belong to the split, bool [rows]."""
        if not self._fraction:
            return np.ones(len(rows), bool)
        key = (self._seed, order.HELD_OUT, number)
        held_out = order.held_out(rows, self._fraction, *key)
        return held_out if self._held_out else ~held_out


def _place(file: str, bad: BadRow) -> str:
    return f"{file}: row {bad.row} (counting from 0): {bad.reason}."
