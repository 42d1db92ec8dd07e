"""Rows of files that a model is to answer, read as those of training are."""

import dataclasses
import glob
import os
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

import pyarrow as pa

from monolith_tf.data import formats
from monolith_tf.data import reader as reader_lib
from monolith_tf.data.rows import SplitRows
from monolith_tf.data.spec import DataSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import check_exists


def spec_for(reading: DataSpec, pattern: str) -> DataSpec:
    """Returns a description of the files that a pattern matches, as the split `test`.

    The format goes by the ending of their names, and where that says nothing by
    `reading.format`.

    Args:
      reading: How files are read.
      pattern: A file or a glob pattern; what it means to a reader of the job's own is
        that reader's affair.

    Raises:
      ValueError: If no file matches, or nothing says what the format is.
    """
    if os.path.isfile(pattern):
        pattern = glob.escape(pattern)
    if reading.reader is not None:
        return dataclasses.replace(reading, test=(pattern,))
    files = reader_lib.matching(pattern)
    if not files:
        raise ValueError(
            f"no file matches {pattern!r}. Relative paths start from {os.getcwd()}."
        )
    endings = {formats.format_of(file) for file in files}
    format_ = reading.format
    if len(endings) == 1:
        format_ = endings.pop() or format_
    if format_ == "auto":
        raise ValueError(
            "the names of the files do not say of which one format they are; they end "
            "in .parquet, .csv, .tfrecord or .tfrecords, and .gz or .zst after that. "
            f"Received: {', '.join(files[:5])}. Give `data.format=csv`, or another."
        )
    escaped = tuple(glob.escape(file) for file in files)
    return dataclasses.replace(reading, format=format_, test=escaped)


class PredictionRows:
    """The rows of the split `test`, with key columns that the model does not see.

    Attributes:
      files: The files, in the order in which they are read.
    """

    def __init__(
        self,
        spec: DataSpec,
        columns: Mapping[str, ColumnType],
        keys: Iterable[str] = (),
    ) -> None:
        """Opens the files.

        Args:
          spec: As `spec_for` returns it.
          columns: The columns that the model takes; no others need be there.
          keys: Columns to give beside them.

        Raises:
          ValueError: If a column is missing, or its type does not do.
        """
        reader = formats.make_reader(spec, "test")
        self.files = reader.files("test")
        formats.check_file(reader, self.files[0], columns)
        types = _key_types(reader, self.files[0], columns, keys)
        self._rows = SplitRows(spec, reader, "test", columns, 0, types)

    @property
    def num_bad_rows(self) -> int:
        """Rows left out so far, where the spec says to skip those that are bad."""
        return self._rows.num_bad_rows

    def batches(self, size: int) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yields the model's columns and the keys of at most `size` rows, in order.

        The columns are as `data.arrow` describes clean ones; the keys are as the files
        have them, those of CSV files that the model does not take as text.

        Raises:
          ValueError: If a row cannot be read, unless such rows are to be skipped.
        """
        for index in range(len(self._rows.pieces)):
            for table, _, keys in self._rows.read_with_keys(index):
                for begin in range(0, table.num_rows, size):
                    yield table.slice(begin, size), keys.slice(begin, size)


def _key_types(
    reader: reader_lib.Reader,
    file: str,
    columns: Mapping[str, ColumnType],
    keys: Iterable[str],
) -> dict[str, ColumnType]:
    """Returns the type to read each key column with."""
    schema = reader.schema(file)
    types = {}
    for key in keys:
        if schema:
            check_exists(key, schema, f"the key `{key}` ({file})")
        if key in columns:
            types[key] = columns[key]
        elif reader.holds_text:  # As it stands: 007 is not 7.
            types[key] = ColumnType(dtype="string")
        else:
            types[key] = schema.get(key, ColumnType(dtype="int64"))
        if types[key].is_list:
            raise ValueError(
                f"{file}: the key column `{key}` holds lists. A key is a single value."
            )
    return types
