"""The interface of readers: pieces of files, and their rows in blocks."""

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
    """A part of a file that can be read without the parts before it.

    Attributes:
      file: Path of the file.
      index: Place among the pieces of the file.
      first_row: Number of its first row in the file, from 0.
      num_rows: Number of its rows; None if it must be read to count them.
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
      way_out: A sentence that says what may help; empty if only the row can be fixed.
    """

    row: int
    reason: str
    way_out: str = ""


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of a piece.

    Attributes:
      table: The requested columns, in Arrow types that can hold them.
      rows: Number of each of the table's rows in the file, from 0, rising.
      bad: Rows that are not in the table because they could not be read.
    """

    table: pa.Table
    rows: np.ndarray
    bad: tuple[BadRow, ...] = ()


class Reader(abc.ABC):
    """Reads files of one format.

    Rows come in the order of the file, the same at every reading. Your own reader
    derives from this class and is named in the config, `reader: my_module:MyReader`;
    it is constructed with the `DataSpec` as its only argument.

    Attributes:
      spec: The description of the data.
      guesses_types: Whether `schema` guesses the types from a sample of rows.
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
        """Returns whether a file has any row; True if not known."""
        del file
        return True

    @abc.abstractmethod
    def schema(self, file: str) -> dict[str, ColumnType]:
        """Returns the type of every column of a file; empty if not known."""

    def pieces(self, file: str) -> list[Piece]:
        """Returns the pieces of a file, in the order of its rows."""
        return [Piece(file)]

    @abc.abstractmethod
    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """Yields the rows of a piece.

        Args:
          piece: One of `pieces`.
          columns: The columns to read, and the types to which they are converted later.

        Raises:
          ValueError: If the file cannot be read at all, or lacks a column.
        """

    def count(self, piece: Piece) -> int:
        """Returns the number of rows of a piece, if possible without decoding them."""
        if piece.num_rows is not None:
            return piece.num_rows
        return sum(len(block.rows) + len(block.bad) for block in self.read(piece, {}))

    def may_have_bad_rows(
        self, piece: Piece, columns: Mapping[str, ColumnType]
    ) -> bool:
        """Returns whether any row of a piece may be bad; True if not known."""
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
    """Returns the first file that has rows, or the first file if none has.

    Raises:
      ValueError: If no file has rows, or a text file before it has none, unless bad
        rows are skipped.
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
    """Returns the error message for a file without rows."""
    return (
        f"{file}: has no rows. Write it again, remove it from `data.{split}`, or set "
        "`data.on_bad_row` to `skip`."
    )


def check_unique(file: str, names: Sequence[str]) -> None:
    """Raises ValueError if two columns of a file have the same name."""
    twice = [name for name, num in collections.Counter(names).items() if num > 1]
    if twice:
        raise ValueError(
            f"{file}: two columns are named `{twice[0]}`. Rename or drop one of them."
        )


def check_has_columns(
    file: str, names: list[str], columns: Mapping[str, ColumnType]
) -> None:
    """Raises ValueError if a file lacks a column to read."""
    missing = [column for column in columns if column not in names]
    if missing:
        raise ValueError(
            f"{file}: lacks the column `{missing[0]}`. It has: "
            f"{', '.join(f'`{name}`' for name in names[:50])}. Files of one split must "
            "have the same columns."
        )
