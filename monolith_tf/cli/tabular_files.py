"""Files of raw features in, files of predictions out."""

import contextlib
import json
import os
import pathlib
import types
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple
from typing import Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from monolith_tf.cli import errors
from monolith_tf.config import errors as config_errors

LIST_DELIMITER = "|"
"""Between the elements of a CSV cell that holds a list."""


class Column(NamedTuple):
    """What a model takes in one column.

    Attributes:
      dtype: The type of its values.
      is_list: Whether each row holds a list of them.
    """

    dtype: pa.DataType
    is_list: bool


class Input:
    """A file of rows."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def batches(
        self, columns: Mapping[str, Column], num_rows: int
    ) -> Iterator[pa.Table]:
        """Yields the columns asked for, in batches of at most `num_rows` rows.

        Raises:
          ValueError: If the file cannot be read, or lacks a column.
        """
        try:
            yield from self._read(columns, num_rows)
        except pa.ArrowException as error:
            raise ValueError(f"{self.path}: {error}") from None

    def _read(self, columns: Mapping[str, Column], num_rows: int) -> Iterator[pa.Table]:
        raise NotImplementedError

    def _check(self, names: list[str], columns: Mapping[str, Column]) -> None:
        for column in columns:
            if column not in names:
                near = config_errors.did_you_mean(column, names)
                raise ValueError(
                    f"{self.path} has no column `{column}`, which the model takes."
                    f"{near}"
                )


class ParquetInput(Input):
    """A Parquet file."""

    def _read(self, columns: Mapping[str, Column], num_rows: int) -> Iterator[pa.Table]:
        with pyarrow.parquet.ParquetFile(self.path) as file:
            self._check(file.schema_arrow.names, columns)
            for batch in file.iter_batches(num_rows, columns=list(columns)):
                yield pa.Table.from_batches([batch])


class CsvInput(Input):
    """A CSV file with a header row."""

    def _read(self, columns: Mapping[str, Column], num_rows: int) -> Iterator[pa.Table]:
        with pyarrow.csv.open_csv(self.path) as file:
            self._check(file.schema.names, columns)
        options = pyarrow.csv.ConvertOptions(
            include_columns=list(columns),
            column_types={
                name: pa.string() if column.is_list else column.dtype
                for name, column in columns.items()
            },
            strings_can_be_null=False,
        )
        with pyarrow.csv.open_csv(self.path, convert_options=options) as file:
            for block in file:
                table = pa.Table.from_batches([block])
                for name, column in columns.items():
                    if column.is_list:
                        place = table.schema.get_field_index(name)
                        lists = _split(table[name], column.dtype)
                        table = table.set_column(place, name, lists)
                for begin in range(0, table.num_rows, num_rows):
                    yield table.slice(begin, num_rows)


def _split(cells: pa.ChunkedArray, dtype: pa.DataType) -> pa.Array:
    lists = [cell.split(LIST_DELIMITER) if cell else [] for cell in cells.to_pylist()]
    return pa.array(lists, pa.list_(pa.string())).cast(pa.list_(dtype))


class Output:
    """A file that appears when it is complete."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Begins the file, in a folder that is made where missing."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Completes the file, or removes it after an error."""
        self._closing.close()
        if kind is None and self._part.exists():
            os.replace(self._part, self._path)
        else:
            self._part.unlink(missing_ok=True)

    def write(self, rows: pa.Table) -> None:
        """Appends rows."""
        raise NotImplementedError


class ParquetOutput(Output):
    """A Parquet file."""

    _writer: Any = None

    def write(self, rows: pa.Table) -> None:
        """See base class."""
        if self._writer is None:
            writer = pyarrow.parquet.ParquetWriter(self._part, rows.schema)
            self._writer = self._closing.enter_context(writer)
        self._writer.write_table(rows)


class CsvOutput(Output):
    """A CSV file; a list is written as JSON in its cell."""

    _writer: Any = None

    def write(self, rows: pa.Table) -> None:
        """See base class."""
        for place, field in enumerate(rows.schema):
            if pa.types.is_list(field.type):
                texts = [json.dumps(value) for value in rows[field.name].to_pylist()]
                rows = rows.set_column(place, field.name, pa.array(texts))
        if self._writer is None:
            writer = pyarrow.csv.CSVWriter(self._part, rows.schema)
            self._writer = self._closing.enter_context(writer)
        self._writer.write_table(rows)


class JsonLinesOutput(Output):
    """One JSON object a line."""

    _file: Any = None

    def write(self, rows: pa.Table) -> None:
        """See base class."""
        if self._file is None:
            file = self._part.open("w", encoding="utf-8")
            self._file = self._closing.enter_context(file)
        for row in rows.to_pylist():
            self._file.write(json.dumps(row) + "\n")


_INPUTS: Mapping[str, type[Input]] = {".parquet": ParquetInput, ".csv": CsvInput}
_OUTPUTS: Mapping[str, type[Output]] = {
    ".parquet": ParquetOutput,
    ".csv": CsvOutput,
    ".jsonl": JsonLinesOutput,
}


def open_input(path: pathlib.Path) -> Input:
    """Returns the reader of a file by the ending of its name.

    Raises:
      UsageError: If there is no such file, or its ending is not known.
    """
    kind = _by_ending("--input", path, _INPUTS)
    if not path.is_file():
        raise errors.UsageError(f"--input: {path} does not exist.")
    return kind(path)


def open_output(path: pathlib.Path) -> Output:
    """Returns the writer of a file by the ending of its name.

    Raises:
      UsageError: If the ending is not known.
    """
    return _by_ending("--output", path, _OUTPUTS)(path)


def _by_ending(option: str, path: pathlib.Path, kinds: Mapping[str, Any]) -> Any:
    if path.suffix not in kinds:
        raise errors.UsageError(
            f"{option}: the name must end in {', '.join(kinds)}. Received: {path}."
        )
    return kinds[path.suffix]
