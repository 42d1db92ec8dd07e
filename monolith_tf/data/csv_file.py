"""Opens one CSV file, and knows its lines that the parser would drop silently."""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from absl import logging

from monolith_tf.data import csv_lines
from monolith_tf.data import csv_row_numbers
from monolith_tf.data import text
from monolith_tf.data.reader import check_unique
from monolith_tf.data.spec import DataSpec

_BLOCK_BYTES = 1 << 20


class CsvFile:
    """A file, opened as often as needed; it is scanned once.

    Attributes:
      path: Its path.
    """

    def __init__(self, path: str, spec: DataSpec) -> None:
        self.path = path
        self._spec = spec
        self._is_text = False  # Whether the encoding was checked.
        self._is_single: bool | None = None  # Whether there is only one column.
        self._lines: csv_lines.Lines | None = None

    def names(self) -> list[str]:
        """Returns the names of the columns.

        Raises:
          ValueError: If two are the same, or the file cannot be read.
        """
        names = self.open(pyarrow.csv.ConvertOptions()).schema.names
        check_unique(self.path, names)
        return names

    def open(
        self,
        options: pyarrow.csv.ConvertOptions,
        malformed: list[Any] | None = None,
        quoted: bool = True,
    ) -> pyarrow.csv.CSVStreamingReader:
        """Opens the file.

        A blank line is a row if there is one column, and not a row if there are more.

        Args:
          options: Which columns to convert, and how.
          malformed: Rows with a wrong number of cells are appended to it.
          quoted: Whether any cell may be quoted.

        Raises:
          ValueError: If the file is not CSV in UTF-8.
        """
        if self._is_single is None:
            every = pyarrow.csv.ConvertOptions()
            names = self._open_as(every, None, True, False).schema.names
            self._is_single = len(names) == 1
        return self._open_as(options, malformed, quoted, self._is_single)

    def _open_as(
        self,
        options: pyarrow.csv.ConvertOptions,
        malformed: list[Any] | None,
        quoted: bool,
        is_single: bool,
    ) -> pyarrow.csv.CSVStreamingReader:
        """Opens a file of one column, or of several."""

        def put_aside(row: Any) -> str:
            if malformed is not None:
                malformed.append(row)
            return "skip"

        try:
            if not self._is_text:
                text.check(self.path, self._beginning())
                self._is_text = True
            opened = pyarrow.csv.open_csv(
                self._stream(),
                # The parser numbers rows only in a single thread.
                read_options=pyarrow.csv.ReadOptions(
                    use_threads=False,
                    block_size=_BLOCK_BYTES,
                    skip_rows=self._num_before_header() if is_single else 0,
                    column_names=list(self._spec.column_names),
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self._spec.delimiter,
                    newlines_in_values=quoted,
                    ignore_empty_lines=not is_single,
                    invalid_row_handler=put_aside,
                ),
                convert_options=options,
            )
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{self.path}: not a readable CSV file: {error}{self.spoilt_row()}"
            ) from error
        try:
            opened.schema.names  # noqa: B018 (decodes them)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}: the name {error.object!r} of a column is not UTF-8 "
                f"text. {text.CONVERT}"
            ) from error
        return opened

    def number_rows(
        self,
        malformed: list[Any],
        lines: csv_lines.Lines = csv_lines.NOTHING_AMISS,
    ) -> csv_row_numbers.RowNumbers:
        """Returns the numbers of the rows of the file, which has been opened.

        Args:
          malformed: The list to which `open` appends.
          lines: Its blank and broken lines.
        """
        first = 1 if self._spec.column_names else 2
        if self._is_single:  # The parser returns its blank lines as rows.
            first += self._num_before_header()
            lines = dataclasses.replace(lines, blank=np.empty(0, np.int64))
        return csv_row_numbers.RowNumbers(malformed, first, lines)

    def lines(self) -> csv_lines.Lines:
        """Returns the blank and broken lines; logs what is lost.

        Raises:
          ValueError: If the header is broken.
        """
        if self._lines is None:
            try:
                lines = csv_lines.scan(
                    self._stream,
                    self._spec.delimiter,
                    has_header=not self._spec.column_names,
                )
            except (OSError, pa.ArrowException):
                return csv_lines.NOTHING_AMISS  # Reading it reports what is wrong.
            self._lines = lines
            if lines.num_last_blank and not self._is_single:
                what = "%s: skipped %d blank lines at its end."
                logging.info(what, self.path, lines.num_last_blank)
            if min(lines.spoilt, default=0) < 0:
                raise ValueError(
                    f"{self.path}: in the header: {lines.spoilt[-1]}. {csv_lines.CLOSE}"
                )
            if self._spec.on_bad_row == "skip":
                for row, reason in lines.spoilt.items():
                    logging.warning(
                        "%s: row %d is skipped: %s.", self.path, row, reason
                    )
        return self._lines

    def spoilt_row(self) -> str:
        """Returns the first row with a broken quote, to add to an error, or ""."""
        for row, reason in self.lines().spoilt.items():
            return f". Row {row} (counting from 0): {reason}. {csv_lines.CLOSE}"
        return ""

    def _num_before_header(self) -> int:
        """Returns the number of blank lines above the header."""
        if self._spec.column_names:
            return 0
        lines = self._beginning().removeprefix(b"\xef\xbb\xbf").splitlines()
        return next((num for num, line in enumerate(lines) if line), 0)

    def _beginning(self) -> bytes:
        with self._stream() as stream:
            return stream.read(text.SAMPLE_BYTES)

    def _stream(self) -> pa.NativeFile:
        """Opens the file as decompressed bytes."""
        return pa.input_stream(self.path, compression="detect")
