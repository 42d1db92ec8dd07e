"""Rows of files to predict for, read like training rows."""

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

    The format follows from the files' extension, or else from `reading.format`.

    Args:
      reading: How files are read.
      pattern: A file or a glob pattern; the job's own reader, if any, interprets it.

    Raises:
      ValueError: If no file matches, or the format is not known.
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
            "the names of the files do not show one format. They must end in .parquet, "
            ".csv, .tfrecord or .tfrecords, and perhaps .gz or .zst after that. "
            f"Received: {', '.join(files[:5])}. Or set `data.format`, such as to csv."
        )
    escaped = tuple(glob.escape(file) for file in files)
    return dataclasses.replace(reading, format=format_, test=escaped)


class PredictionRows:
    """The rows of the split `test`, with key columns that the model does not see.

    Attributes:
      files: The files, in reading order.
    """

    def __init__(
        self,
        spec: DataSpec,
        columns: Mapping[str, ColumnType],
        keys: Iterable[str] = (),
    ) -> None:
        """Opens the files.

        Args:
          spec: As returned by `spec_for`.
          columns: The columns that the model takes; others are not needed.
          keys: Columns to return in addition.

        Raises:
          ValueError: If a column is missing, or its type does not fit.
        """
        reader = formats.make_reader(spec, "test")
        self.files = reader.files("test")
        formats.check_file(reader, self.files[0], columns)
        types = _key_types(reader, self.files[0], columns, keys)
        self._rows = SplitRows(spec, reader, "test", columns, 0, types)

    @property
    def num_bad_rows(self) -> int:
        """Bad rows skipped so far, if the spec says to skip them."""
        return self._rows.num_bad_rows

    def batches(self, size: int) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yields the model's columns and the keys of at most `size` rows, in order.

        The columns are clean, as `data.arrow` describes. The keys are as in the files;
        keys of CSV files that the model does not take are text.

        Raises:
          ValueError: If a row cannot be read, unless bad rows are skipped.
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
        elif reader.holds_text:  # Unchanged: 007 is not 7.
            types[key] = ColumnType(dtype="string")
        else:
            types[key] = schema.get(key, ColumnType(dtype="int64"))
        if types[key].is_list:
            raise ValueError(
                f"{file}: the key column `{key}` holds lists. A key is a single value."
            )
    return types
