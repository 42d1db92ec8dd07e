"""The interface of readers: pieces of files, and their rows in blocks."""

import abc
import collections
import dataclasses
import functools
import glob
import os
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from absl import logging

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
      way_out: A sentence of advice; empty if only the row can be fixed.
    """

    row: int
    reason: str
    way_out: str = ""


@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of a piece.

    Attributes:
      table: The requested columns, in Arrow types that can hold them.
      rows: Number of each of the table's rows in the file, from 0, increasing.
      bad: Rows that are not in the table because they could not be read.
    """

    table: pa.Table
    rows: np.ndarray
    bad: tuple[BadRow, ...] = ()


class Reader(abc.ABC):
    """Reads files of one format.

    Rows come in the order of the file, the same on every read. To write your own
    reader, subclass this class and name it in the config, `reader: my_module:MyReader`;
    its constructor receives the `DataSpec` as its only argument.

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
          columns: The columns to read, and the types they are later converted to.

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

    If a file has several names, by links or other spellings, returns the first one and
    logs a warning.

    Raises:
      ValueError: If there is no pattern, or one matches nothing or not only files.
    """
    check_names_files(split, patterns)
    files: dict[str, str] = {}  # The real path of each.
    for pattern in patterns:
        try:
            matches = matching(pattern)
        except ValueError as error:
            raise ValueError(f"`data.{split}`: {error}") from error
        if not matches:
            raise ValueError(
                f"`data.{split}`: no file matches {pattern!r}. Relative paths start "
                f"from {os.getcwd()}."
            )
        for match in matches:
            first = files.setdefault(os.path.realpath(match), match)
            if first != match:
                _say_is_repeat(split, match, first)
    return list(files.values())


@functools.cache
def _say_is_repeat(split: Split, file: str, first: str) -> None:
    """Logs, once per process, that a repeated file is skipped."""
    what = "`data.%s`: %s is the same file as %s, and is read once."
    logging.warning(what, split, file, first)


def check_names_files(split: Split, patterns: tuple[str, ...]) -> None:
    """Raises ValueError if a split has no pattern of files."""
    if not patterns:
        raise ValueError(
            f"The config names no files for the split `{split}`. Set `data.{split}`"
            + (", or `data.validation_fraction`." if split == "eval" else ".")
        )


def matching(pattern: str) -> list[str]:
    """Returns the files that a glob pattern matches, sorted by name.

    Raises:
      ValueError: If it matches anything but files. Folders are allowed if the pattern
        also matches the files in them, as `**` does.
    """
    matches = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    files = [match for match in matches if os.path.isfile(match)]
    within = {folder for file in files for folder in _folders(file)}
    if os.path.basename(pattern) == "**":
        within.update(match for match in matches if os.path.isdir(match))
    others = [m for m in matches if not os.path.isfile(m) and m not in within]
    if not others:
        return files
    folders = [other for other in others if os.path.isdir(other)]
    ways_out = []
    if folders:
        ending = os.path.splitext(folders[0])[1]
        files_of = os.path.join(glob.escape(folders[0]), f"*{ending}")
        ways_out.append(f"For the files of a folder use a pattern, {files_of!r}.")
    if len(others) > len(folders):
        ways_out.append("Remove what is neither a file nor a folder.")
    raise ValueError(
        f"{pattern!r} matches more than files: {', '.join(map(_what_is, others))}. "
        f"{' '.join(ways_out)}"
    )


def _folders(file: str) -> Iterator[str]:
    """Yields all folders that contain a file, with and without a slash at the end."""
    folder = os.path.dirname(file)
    while folder not in ("", os.path.dirname(folder)):
        yield from (folder, os.path.join(folder, ""))
        folder = os.path.dirname(folder)


def _what_is(path: str) -> str:
    """Returns a path that is not a file, and what it is instead."""
    if os.path.isdir(path):
        return f"{path} (a folder)"
    if os.path.islink(path) and not os.path.exists(path):
        return f"{path} (a link to {os.readlink(path)}, which is not there)"
    return f"{path} (no regular file)"


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
