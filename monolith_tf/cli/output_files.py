"""Writes files of predictions."""

import contextlib
import json
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any
from typing import Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from monolith_tf.cli import errors


class Output:
    """A file that appears under its name once it is complete."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Begins the file; makes its folder if needed."""
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
            self._file.write(json.dumps(row, default=str) + "\n")


_OUTPUTS: Mapping[str, type[Output]] = {
    ".parquet": ParquetOutput,
    ".csv": CsvOutput,
    ".jsonl": JsonLinesOutput,
}


def plain(table: pa.Table) -> pa.Table:
    """Returns columns in types that every file format can hold: text as strings.

    Raises:
      ValueError: If a column holds bytes that are not UTF-8.
    """
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            try:
                column = column.cast(pa.string())
            except pa.ArrowInvalid:
                raise ValueError(
                    f"The key column `{field.name}` holds bytes that are not UTF-8."
                ) from None
        table = table.set_column(place, field.name, column)
    return table


def open_output(path: pathlib.Path) -> Output:
    """Returns the writer of a file, by the extension of its name.

    Raises:
      UsageError: If the extension is not known.
    """
    if path.suffix not in _OUTPUTS:
        raise errors.UsageError(
            f"--output: the name must end in {', '.join(_OUTPUTS)}. Received: {path}."
        )
    return _OUTPUTS[path.suffix](path)
