"""CSV files, plain or compressed: a piece is a file."""

import functools
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from monolith_tf.data import csv_lines
from monolith_tf.data import csv_schema
from monolith_tf.data import rounding
from monolith_tf.data.csv_cells import Cells
from monolith_tf.data.csv_cells import way_out
from monolith_tf.data.csv_file import CsvFile
from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import check_has_columns
from monolith_tf.data.spec import DataSpec
from monolith_tf.features.columns import ColumnType


class CsvReader(Reader):
    """Reads CSV as bytes and converts block by block.

    This is faster than to convert in the parser, and a cell that does not convert
    spoils only its row, not its block.
    """

    guesses_types = True
    holds_text = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self._cells = Cells(spec)
        self._files: dict[str, CsvFile] = {}
        self._truth: dict[str, dict[str, bool]] = {}  # By file and column.
        self._look = rounding.Look()

    def schema(self, file: str) -> dict[str, ColumnType]:
        """See `Reader.schema`; guesses types from the first rows.

        A text column may hold lists, so this also guesses the type of their elements.
        """
        return csv_schema.read(self._file(file), self.spec, self._cells)

    def has_rows(self, file: str) -> bool:
        """See `Reader.has_rows`; a row with a wrong number of cells counts."""
        malformed: list[Any] = []
        try:
            blocks = self._file(file).open(pyarrow.csv.ConvertOptions(), malformed)
            return any(batch.num_rows or malformed for batch in blocks) or bool(
                malformed
            )
        except (OSError, pa.ArrowException):
            return True  # Reading it reports what is wrong.

    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """See `Reader.read`."""
        malformed: list[Any] = []
        file = self._file(piece.file)
        names = file.names()
        check_has_columns(piece.file, names, columns)
        wanted = [name for name in names if name in columns] or names[:1]
        options = pyarrow.csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary())
        )
        lines = file.lines()
        numbers = file.number_rows(malformed, lines)
        try:
            for batch in file.open(options, malformed, lines.has_quotes):
                rows, bad = numbers.take(batch.num_rows)
                yield self._convert(piece.file, batch, rows, bad, columns, lines.spoilt)
            rows, bad = numbers.take(0, rest=True)
            empty = {name: pa.array([], pa.null()) for name in columns}
            yield Block(pa.table(empty), rows, tuple(bad))
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{piece.file}: cannot be read from row {numbers.next_row} on: {error}"
                f"{file.spoilt_row()}"
            ) from error

    def _file(self, path: str) -> CsvFile:
        if path not in self._files:
            self._files[path] = CsvFile(path, self.spec)
        return self._files[path]

    def _convert(
        self,
        file: str,
        batch: pa.RecordBatch,
        rows: np.ndarray,
        bad: list[BadRow],
        columns: Mapping[str, ColumnType],
        spoilt: Mapping[int, str],
    ) -> Block:
        """Makes a block of a batch of cells, without rows broken by a quote."""
        arrays = []
        fine = np.ones(len(rows), bool)
        for index in np.flatnonzero(np.isin(rows, list(spoilt))).tolist():
            row = int(rows[index])
            bad.append(BadRow(row, spoilt[row], csv_lines.CLOSE))
            fine[index] = False
        for name, type_ in columns.items():
            holds_truth = functools.partial(self._holds_truth, file, name)
            array, wrong = self._cells.convert(batch.column(name), type_, holds_truth)
            arrays.append(array)
            if type_.dtype == "float32":
                self._look_at_rounding(file, name, batch.column(name))
            for index, reason in wrong.items():
                if fine[index]:
                    where = f"column `{name}`: {reason}"
                    bad.append(BadRow(int(rows[index]), where, way_out(type_, reason)))
                fine[index] = False
        table = pa.table(arrays, names=list(columns))
        if not fine.all():
            table = table.filter(pa.array(fine)) if columns else table
            rows = rows[fine]
        return Block(table, rows, tuple(sorted(bad, key=lambda row: row.row)))

    def _holds_truth(self, file: str, column: str) -> bool:
        """Returns whether the cells of a file's column are true or false."""
        if file not in self._truth:
            schema = self.schema(file)
            self._truth[file] = {name: bool(t.is_truth) for name, t in schema.items()}
        return self._truth[file][column]

    def _look_at_rounding(self, file: str, name: str, cells: pa.Array) -> None:
        """Checks the numbers of a column before they are rounded to float32."""
        if not self._look.is_due(name):
            return
        try:
            values = self._cells.elements(cells).cast(pa.float64())
        except pa.ArrowInvalid:
            return  # Another block may have no bad cell.
        self._look.at(file, name, values)
