"""What a reader of one file format gives: pieces of files, and their rows in blocks."""

import abc
import collections
import dataclasses
import glob
import os
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import Split
from monolith_tf.features.columns import ColumnType


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of a file that can be read without what is before it.

    Attributes:
      file: Path of the file.
      index: Place among the pieces of the file.
      first_row: Number of its first row in the file, from 0.
      num_rows: Its rows; None where only reading it tells.
    """

    file: str
    index: int = 0
    first_row: int = 0
    num_rows: int | None = None


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that could not be read.

    Attributes:
      row: Its number in the file, from 0.
      reason: What is wrong, for an error message.
      way_out: What may help, a sentence; empty where only the row can be mended.
    """

    row: int
    reason: str
    way_out: str = ""


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of a piece.

    Attributes:
      table: The columns asked for, in Arrow types that hold them.
      rows: Number of each of the table's rows in the file, from 0, rising.
      bad: Rows that are not in the table because they could not be read.
    """

    table: pa.Table
    rows: np.ndarray
    bad: tuple[BadRow, ...] = ()


class Reader(abc.ABC):
    """Reads one kind of files.

    Rows come in the order of the file, the same at every reading. A job's own reader
    derives from this class and is named in the config, `reader: my_module:MyReader`;
    it is made with the `DataSpec` as its only argument.

    Attributes:
      spec: The description of the data.
      guesses_types: Whether `schema` knows the types from a sample of rows only.
      holds_text: Whether all values are text, and can be read as strings.
    """

    guesses_types = False
    holds_text = False

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def files(self, split: Split) -> list[str]:
        """Returns the files of a split, in reading order.

        Raises:
          ValueError: If the config names no files, or a pattern matches none.
        """
        return expand(split, self.spec.patterns(split))

    def has_rows(self, file: str) -> bool:
        """Returns whether a file has any row; True if in doubt."""
        del file
        return True

    @abc.abstractmethod
    def schema(self, file: str) -> dict[str, ColumnType]:
        """Returns the type of every column of a file; empty if it does not say."""

    def pieces(self, file: str) -> list[Piece]:
        """Returns the pieces of a file, in the order of its rows."""
        return [Piece(file)]

    @abc.abstractmethod
    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """Yields the rows of a piece.

        Args:
          piece: One of `pieces`.
          columns: The columns to read, and the types they will be brought to.

        Raises:
          ValueError: If the file cannot be read at all, or lacks a column.
        """

    def count(self, piece: Piece) -> int:
        """Returns how many rows a piece has, without decoding them where possible."""
        if piece.num_rows is not None:
            return piece.num_rows
        return sum(len(block.rows) + len(block.bad) for block in self.read(piece, {}))

    def may_have_bad_rows(
        self, piece: Piece, columns: Mapping[str, ColumnType]
    ) -> bool:
        """Returns whether any row of a piece might be bad; True if in doubt."""
        del piece, columns
        return True


def expand(split: Split, patterns: tuple[str, ...]) -> list[str]:
    """Returns the files that glob patterns match, each once.

    Raises:
      ValueError: If there is no pattern, or one matches no file.
    """
    check_names_files(split, patterns)
    files: dict[str, Any] = {}
    for pattern in patterns:
        matches = matching(pattern)
        if not matches:
            raise ValueError(
                f"`data.{split}`: no file matches {pattern!r}. Relative paths start "
                f"from {os.getcwd()}."
            )
        files.update(dict.fromkeys(matches))
    return list(files)


def check_names_files(split: Split, patterns: tuple[str, ...]) -> None:
    """Raises ValueError if a split has no pattern of files."""
    if not patterns:
        raise ValueError(
            f"The config names no files for the split `{split}`. Set `data.{split}`"
            + (", or `data.validation_fraction`." if split == "eval" else ".")
        )


def matching(pattern: str) -> list[str]:
    """Returns the files that a glob pattern matches, by name."""
    matches = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    return [match for match in matches if os.path.isfile(match)]


def first_with_rows(reader: Reader, split: Split, files: Sequence[str]) -> str:
    """Returns the first file that has rows; the first of all where none has.

    Raises:
      ValueError: If none has, or a text file before it has none, unless bad rows are
        skipped.
    """
    is_strict = reader.spec.on_bad_row == "error"
    for file in files:
        if reader.has_rows(file):
            return file
        if is_strict and reader.holds_text:
            raise ValueError(no_rows(file, split))
    if is_strict:
        raise ValueError(no_rows(files[0], split))
    return files[0]


def no_rows(file: str, split: Split) -> str:
    """Returns what is wrong with a file that has no rows."""
    return (
        f"{file}: has no rows. Write it again, remove it from `data.{split}`, or set "
        "`data.on_bad_row` to skip."
    )


def check_unique(file: str, names: Sequence[str]) -> None:
    """Raises ValueError if two columns of a file have one name."""
    twice = [name for name, num in collections.Counter(names).items() if num > 1]
    if twice:
        raise ValueError(
            f"{file}: two columns are named `{twice[0]}`. Rename or drop one of them."
        )


def check_has_columns(
    file: str, names: list[str], columns: Mapping[str, ColumnType]
) -> None:
    """Raises ValueError if a file lacks a column that is to be read."""
    missing = [column for column in columns if column not in names]
    if missing:
        raise ValueError(
            f"{file}: lacks the column `{missing[0]}`. It has: "
            f"{', '.join(f'`{name}`' for name in names[:50])}. Files of one split must "
            "have the same columns."
        )
