"""CSV files, plain or compressed: a piece is a file."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from absl import logging

from monolith_tf.data import csv_guess
from monolith_tf.data import csv_lines
from monolith_tf.data import rounding
from monolith_tf.data import text
from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import check_has_columns
from monolith_tf.data.reader import check_unique
from monolith_tf.data.spec import DataSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_BLOCK_BYTES = 1 << 20
_GUESS_BLOCKS = 16  # Most blocks searched for a value of every column.
_NUMBERS = {"int64": pa.int64(), "float32": pa.float32()}
_NOUNS = {"int64": "an integer", "float32": "a number"}
_CONVERT = f"If the file is in another encoding, convert it: {text.convert('LATIN1')}."
_TRUTH = {"true": 1, "false": 0, "1": 1, "0": 0}
_NOT_AS_WRITTEN = "is an integer with leading zeros or in hexadecimal"
_OF_64_BITS = " of 64 bits"
_BLANK = "Blank lines are ignored only at the end of a file."
_CLOSE = "Close the quote, or double it if it is part of the text."


class CsvReader(Reader):
    """Reads CSV as bytes and converts block by block.

    This is faster than to convert in the parser, and a cell that does not convert
    spoils only its row, not its block.
    """

    guesses_types = True
    holds_text = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self._lines_of: dict[str, csv_lines.Lines] = {}
        self._single: dict[str, bool] = {}  # Whether a file has only one column.
        self._truth: dict[tuple[str, str], bool] = {}  # By file and column.
        self._look = rounding.Look()
        self._texts: set[str] = set()  # Files whose encoding was checked.

    def schema(self, file: str) -> dict[str, ColumnType]:
        """See `Reader.schema`; guesses types from the first rows.

        A text column may hold lists, so this also guesses the type of their elements.
        """
        options = pyarrow.csv.ConvertOptions(
            null_values=["", *self.spec.null_values], strings_can_be_null=True
        )
        schema = self._open(file, options).schema
        check_unique(file, schema.names)
        types = {
            field.name: ColumnType(dtype=csv_guess.of_arrow(field.type), is_guess=True)
            for field in schema
        }
        return types | self._look_closer(file, types)

    def _look_closer(
        self, file: str, types: Mapping[str, ColumnType]
    ) -> dict[str, ColumnType]:
        """Returns more exact types than the parser's.

        A column may begin with many empty cells, so this reads until every column has
        a value, but at most `_GUESS_BLOCKS` blocks.
        """
        found: dict[str, ColumnType] = {}
        options = pyarrow.csv.ConvertOptions(
            include_columns=list(types),
            column_types=dict.fromkeys(types, pa.binary()),
        )
        malformed: list[Any] = []
        numbers = self._numbers(file, malformed)
        blocks = self._open(file, options, malformed)
        for batch in itertools.islice(blocks, _GUESS_BLOCKS):
            rows, _ = numbers.take(batch.num_rows)
            for name in [name for name in types if name not in found]:
                closer = self._guess(batch.column(name), rows, types[name])
                if closer is not None:
                    where = closer.example and f"{closer.example} of {file}"
                    found[name] = dataclasses.replace(closer, example=where)
            if len(found) == len(types):
                break
        if not found and (spoilt := self._spoilt(file)):
            raise ValueError(f"{file}: no row shows the types of the columns{spoilt}")
        return found

    def _guess(
        self, cells: pa.Array, rows: np.ndarray, type_: ColumnType
    ) -> ColumnType | None:
        """Returns the type of cells, or None if they are all empty."""
        _, elements = self._split(self._with_nulls(cells))
        elements = self._with_nulls(_trim(elements)).drop_null()
        if not len(elements):
            return None
        texts = self._with_nulls(_trim(cells))
        dtype, of_elements = csv_guess.guess(texts), csv_guess.guess(elements)
        as_number = csv_guess.guess_number(texts)
        is_new = type_.dtype not in (dtype, "float32")  # Floats are never ids.
        example, first = "", -1
        if dtype != "int64":
            expected = {
                "string": csv_guess.are_numbers,
                "float32": csv_guess.are_integers,
            }
            first = pc.index(expected[dtype](texts), False).as_py()
        if first >= 0:
            cell = texts.cast(pa.binary())[first].as_py().decode(errors="replace")
            example = f"{cell!r} in row {rows[first]}"
        return dataclasses.replace(
            type_,
            dtype=dtype,
            elements=None if of_elements == dtype else of_elements,
            example=example,
            before=type_.dtype if is_new else None,
            as_number=None if as_number == dtype else as_number,
            is_truth=csv_guess.hold_truth(elements),
        )

    def _holds_truth(self, file: str, column: str) -> bool:
        """Returns whether the cells of a file's column are true or false."""
        if (file, column) not in self._truth:
            schema = self.schema(file)
            for name, type_ in schema.items():
                self._truth[file, name] = bool(type_.is_truth)
        return self._truth[file, column]

    def has_rows(self, file: str) -> bool:
        """See `Reader.has_rows`; a row with a wrong number of cells counts."""
        malformed: list[Any] = []
        try:
            blocks = self._open(file, pyarrow.csv.ConvertOptions(), malformed)
            return any(batch.num_rows or malformed for batch in blocks) or bool(
                malformed
            )
        except (OSError, pa.ArrowException):
            return True  # Reading it reports what is wrong.

    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """See `Reader.read`."""
        malformed: list[Any] = []
        names = self._names(piece.file)
        check_has_columns(piece.file, names, columns)
        wanted = [name for name in names if name in columns] or names[:1]
        options = pyarrow.csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary())
        )
        lines = self._lines(piece.file)
        numbers = self._numbers(piece.file, malformed, lines)
        try:
            opened = self._open(piece.file, options, malformed, lines.has_quotes)
            for batch in opened:
                rows, bad = numbers.take(batch.num_rows)
                yield self._convert(piece.file, batch, rows, bad, columns, lines.spoilt)
            rest = numbers.take(0, rest=True)
            yield self._convert(piece.file, None, *rest, columns, {})
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{piece.file}: cannot be read from row {numbers.next_row} on: {error}"
                f"{self._spoilt(piece.file)}"
            ) from error

    def _names(self, file: str) -> list[str]:
        """Returns the names of a file's columns."""
        names = self._open(file, pyarrow.csv.ConvertOptions()).schema.names
        check_unique(file, names)
        return names

    def _numbers(
        self,
        file: str,
        malformed: list[Any],
        lines: csv_lines.Lines = csv_lines.NOTHING_AMISS,
    ) -> "_Numbers":
        """Returns an object that numbers the rows of a file."""
        first = 1 if self.spec.column_names else 2
        if self._single.get(file):  # The parser returns its blank lines as rows.
            first += self._num_before_header(file)
            lines = dataclasses.replace(lines, blank=np.empty(0, np.int64))
        return _Numbers(malformed, first, lines)

    def _lines(self, file: str) -> csv_lines.Lines:
        """Returns the blank and broken lines of a file."""
        if file not in self._lines_of:
            try:
                lines = csv_lines.scan(
                    lambda: pa.input_stream(file, compression="detect"),
                    self.spec.delimiter,
                    has_header=not self.spec.column_names,
                )
            except (OSError, pa.ArrowException):
                return csv_lines.NOTHING_AMISS  # Reading it reports what is wrong.
            self._lines_of[file] = lines
            if lines.num_last_blank and not self._single.get(file):
                what = "%s: skipped %d blank lines at its end."
                logging.info(what, file, lines.num_last_blank)
            if min(lines.spoilt, default=0) < 0:
                raise ValueError(f"{file}: in the header: {lines.spoilt[-1]}. {_CLOSE}")
            if self.spec.on_bad_row == "skip":
                for row, reason in lines.spoilt.items():
                    logging.warning("%s: row %d is skipped: %s.", file, row, reason)
        return self._lines_of[file]

    def _spoilt(self, file: str) -> str:
        """Returns text to add to an error of the parser about a file."""
        for row, reason in self._lines(file).spoilt.items():
            return f". Row {row} (counting from 0): {reason}. {_CLOSE}"
        return ""

    def _num_before_header(self, file: str) -> int:
        """Returns the number of blank lines above a file's header."""
        if self.spec.column_names:
            return 0
        with pa.input_stream(file, compression="detect") as stream:
            beginning = stream.read(text.SAMPLE_BYTES).removeprefix(b"\xef\xbb\xbf")
        lines = beginning.splitlines()
        return next((num for num, line in enumerate(lines) if line), 0)

    def _check_text(self, file: str) -> None:
        """Raises ValueError if a file is in UTF-16 or UTF-32."""
        if file not in self._texts:
            with pa.input_stream(file, compression="detect") as stream:
                text.check(file, stream.read(text.SAMPLE_BYTES))
            self._texts.add(file)

    def _open(
        self,
        file: str,
        options: pyarrow.csv.ConvertOptions,
        malformed: list[Any] | None = None,
        quoted: bool = True,
    ) -> Any:
        """Opens a file; rows with a wrong number of cells go to `malformed`.

        A blank line is a row if there is one column, and not a row if there are more.
        """
        if file not in self._single:
            every = pyarrow.csv.ConvertOptions()
            names = self._open_as(file, every, None, True, False).schema.names
            self._single[file] = len(names) == 1
        return self._open_as(file, options, malformed, quoted, self._single[file])

    def _open_as(
        self,
        file: str,
        options: pyarrow.csv.ConvertOptions,
        malformed: list[Any] | None,
        quoted: bool,
        is_single: bool,
    ) -> Any:
        """Opens a file of one column, or of several."""

        def put_aside(row: Any) -> str:
            if malformed is not None:
                malformed.append(row)
            return "skip"

        try:
            self._check_text(file)
            opened = pyarrow.csv.open_csv(
                pa.input_stream(file, compression="detect"),
                # The parser numbers rows only in a single thread.
                read_options=pyarrow.csv.ReadOptions(
                    use_threads=False,
                    block_size=_BLOCK_BYTES,
                    skip_rows=self._num_before_header(file) if is_single else 0,
                    column_names=list(self.spec.column_names),
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self.spec.delimiter,
                    newlines_in_values=quoted,
                    ignore_empty_lines=not is_single,
                    invalid_row_handler=put_aside,
                ),
                convert_options=options,
            )
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{file}: not a readable CSV file: {error}{self._spoilt(file)}"
            ) from error
        try:
            opened.schema.names  # noqa: B018 (decodes them)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file}: the name {error.object!r} of a column is not UTF-8 text. "
                f"{_CONVERT}"
            ) from error
        return opened

    def _convert(
        self,
        file: str,
        batch: pa.RecordBatch | None,
        rows: np.ndarray,
        bad: list[BadRow],
        columns: Mapping[str, ColumnType],
        spoilt: Mapping[int, str],
    ) -> Block:
        """Makes a block of a batch of cells, without rows broken by a quote."""
        if batch is None:
            empty = {name: pa.array([], pa.null()) for name in columns}
            return Block(pa.table(empty), rows, tuple(bad))
        arrays = []
        fine = np.ones(len(rows), bool)
        for index in np.flatnonzero(np.isin(rows, list(spoilt))).tolist():
            row = int(rows[index])
            bad.append(BadRow(row, spoilt[row], _CLOSE))
            fine[index] = False
        for name, type_ in columns.items():
            holds_truth = functools.partial(self._holds_truth, file, name)
            array, wrong = self._cells(batch.column(name), type_, holds_truth)
            arrays.append(array)
            if type_.dtype == "float32":
                self._look_at_rounding(file, name, batch.column(name))
            for index, reason in wrong.items():
                if fine[index]:
                    where = f"column `{name}`: {reason}"
                    bad.append(BadRow(int(rows[index]), where, _way_out(type_, reason)))
                fine[index] = False
        table = pa.table(arrays, names=list(columns))
        if not fine.all():
            table = table.filter(pa.array(fine)) if columns else table
            rows = rows[fine]
        return Block(table, rows, tuple(sorted(bad, key=lambda row: row.row)))

    def _look_at_rounding(self, file: str, name: str, cells: pa.Array) -> None:
        """Checks the numbers of a column before they are rounded to float32."""
        if not self._look.is_due(name):
            return
        _, elements = self._split(self._with_nulls(cells))
        try:
            values = self._with_nulls(_trim(elements)).cast(pa.float64())
        except pa.ArrowInvalid:
            return  # Another block may have no bad cell.
        self._look.at(file, name, values)

    def _cells(
        self, cells: pa.Array, type_: ColumnType, holds_truth: Callable[[], bool]
    ) -> tuple[pa.Array, dict[int, str]]:
        """Returns converted cells, and place -> why the cell does not convert."""
        if not type_.is_list:
            if type_.dtype != "string":
                return _parse(self._with_nulls(_trim(cells)), type_, holds_truth)
            if type_.default is not None:
                cells = self._with_nulls(cells)
            encoded = cells.dictionary_encode()
            return encoded, _by_place(encoded, text.not_text(encoded.dictionary))
        cells = self._with_nulls(cells)
        lists, elements = self._split(cells)
        if type_.dtype == "string":
            values = elements.cast(pa.binary()).dictionary_encode()
            wrong = _by_place(values, text.not_text(values.dictionary))
        else:
            elements = self._with_nulls(_trim(elements))
            values, wrong = _parse(elements, type_, holds_truth)
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        made = pa.ListArray.from_arrays(pa.array(splits), values, mask=cells.is_null())
        return made, {int(owner[index]): reason for index, reason in wrong.items()}

    def _split(self, cells: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Returns cells as lists, and the elements of all of them."""
        lists = pc.split_pattern(
            cells.cast(pa.string(), safe=False), self.spec.list_delimiter
        )
        lists = pc.if_else(cells.is_null(), None, lists)
        return lists, lists.flatten()

    def _with_nulls(self, cells: pa.Array) -> pa.Array:
        """Replaces cells that mean a missing value by null."""
        missing = pc.equal(pc.binary_length(cells), 0)
        if self.spec.null_values:
            names = pa.array(self.spec.null_values, pa.string()).cast(cells.type)
            missing = pc.or_(missing, pc.is_in(cells, value_set=names))
        return pc.if_else(missing, None, cells) if pc.any(missing).as_py() else cells


class _Numbers:
    """Numbers rows from 0, including those that the parser skips.

    The parser counts malformed rows, but not the blank lines in `lines`.

    Args:
      malformed: Rows skipped so far; the parser appends a row before it returns any row
        after it.
      first: The parser's number of the first row after the header.
      lines: The blank and broken lines of the file.
    """

    def __init__(
        self, malformed: list[Any], first: int, lines: csv_lines.Lines
    ) -> None:
        self._malformed = malformed
        self._first = first
        self._seen = 0
        self._lines = lines
        # Number of rows that the parser counts before each blank line.
        self._blank_after = lines.blank - np.arange(len(lines.blank))
        self._num_blank = 0
        self._num_parsed = 0

    def take(self, num: int, rest: bool = False) -> tuple[np.ndarray, list[BadRow]]:
        """Returns the numbers of the next `num` rows, and the bad ones among them.

        Args:
          num: Rows that the parser returned.
          rest: Whether to also return the bad rows after them.
        """
        parts = [np.empty(0, np.int64)]
        bad: list[BadRow] = []
        while num or (rest and self._seen < len(self._malformed)):
            gap = num
            if self._seen < len(self._malformed):
                row = self._malformed[self._seen]
                gap = row.number - self._first - self._num_parsed
            if gap > 0:
                taken = min(gap, num)
                parsed = np.arange(self._num_parsed, self._num_parsed + taken)
                parts.append(self._numbers(parsed))
                self._num_parsed += taken
                num -= taken
            else:
                bad.append(self._bad(self.next_row, row))
                self._num_parsed += 1
                self._seen += 1
        last = np.searchsorted(self._blank_after, self._num_parsed)
        for blank in self._lines.blank[self._num_blank : last].tolist():
            bad.append(BadRow(blank, "a blank line", _BLANK))
        self._num_blank = max(self._num_blank, int(last))
        return np.concatenate(parts), bad

    @property
    def next_row(self) -> int:
        """The number of the row after those returned so far."""
        return int(self._numbers(np.array([self._num_parsed]))[0])

    def _numbers(self, parsed: np.ndarray) -> np.ndarray:
        """Returns the numbers of rows, from their places among the parser's rows."""
        return parsed + np.searchsorted(self._blank_after, parsed, side="right")

    def _bad(self, number: int, row: Any) -> BadRow:
        """Returns a row that the parser skipped."""
        if number in self._lines.spoilt:
            return BadRow(number, self._lines.spoilt[number], _CLOSE)
        return BadRow(
            number,
            f"{row.actual_columns} cells instead of {row.expected_columns}",
        )


def _trim(cells: pa.Array) -> pa.Array:
    """Returns cells as text without surrounding spaces."""
    return pc.ascii_trim_whitespace(cells.cast(pa.string(), safe=False))


def _parse(
    cells: pa.Array, type_: ColumnType, holds_truth: Callable[[], bool]
) -> tuple[pa.Array, dict[int, str]]:
    """Returns cells as numbers, and place -> why the cell is not one.

    Args:
      cells: Strings, or null for a missing value.
      type_: The type to read.
      holds_truth: Returns whether the column's cells in the file are true or false, if
        `type_` does not specify it.
    """
    numbers, wrong = _parse_as(cells, type_, holds_truth)
    if type_.dtype == "int64" and type_.is_guess:
        codes = csv_guess.codes(cells).fill_null(False)
        for place in np.flatnonzero(codes.to_numpy(zero_copy_only=False)).tolist():
            reason = f"{cells[place].as_py()!r} {_NOT_AS_WRITTEN}"
            wrong.setdefault(place, reason)
    return numbers, wrong


def _parse_as(
    cells: pa.Array, type_: ColumnType, holds_truth: Callable[[], bool]
) -> tuple[pa.Array, dict[int, str]]:
    """Like `_parse`, but accepts integers in any notation."""
    dtype = type_.dtype
    if not type_.is_truth:
        try:
            return cells.cast(_NUMBERS[dtype]), {}
        except pa.ArrowInvalid:
            pass
    encoded = cells.dictionary_encode()
    texts = [
        cell.decode(errors="replace")
        for cell in encoded.dictionary.cast(pa.binary()).to_pylist()
    ]
    is_truth = type_.is_truth
    if is_truth is None:
        has_words = any(cell.lower() in ("true", "false") for cell in texts)
        is_truth = has_words and holds_truth()
    numbers: list[float | None] = []
    wrong: dict[int, str] = {}
    for code, cell in enumerate(texts):
        found = _TRUTH.get(cell.lower()) if is_truth else _number(cell, dtype)
        numbers.append(found)
        if found is None:
            noun = "true, false, 1 or 0" if is_truth else _NOUNS[dtype]
            wrong[code] = f"{cell!r} is not {noun}"
            is_integer = cell.isascii() and cell.lstrip("-").isdigit()
            if is_integer and dtype == "int64" and not is_truth:
                wrong[code] += _OF_64_BITS
    made = pa.array(numbers, _NUMBERS[dtype]).take(encoded.indices)
    return made, _by_place(encoded, wrong)


def _by_place(encoded: pa.DictionaryArray, wrong: Mapping[int, str]) -> dict[int, str]:
    """Returns place -> problem, from dictionary code -> problem."""
    if not wrong:
        return {}
    codes = encoded.indices.fill_null(-1).to_numpy()
    places = np.flatnonzero(np.isin(codes, list(wrong)))
    return {int(place): wrong[int(codes[place])] for place in places}


def _way_out(type_: ColumnType, reason: str) -> str:
    """Returns advice for a cell that does not convert."""
    if type_.dtype == "string":
        return _CONVERT
    if reason.endswith(_NOT_AS_WRITTEN):
        return (
            "Set `dtype: string` of the feature that reads it if 007 is not 7, or "
            "`dtype: int` for integers."
        )
    if reason.endswith(_OF_64_BITS):
        return "Set `dtype: string` of the feature: each string gets its own row."
    comma = "Write numbers with a decimal point. " if "," in reason else ""
    return (
        f"{comma}If it means a missing value, add it to `data.null_values`; if "
        "the column has another type, set `dtype` of the feature that reads it."
    )


def _number(cell: str, dtype: DType) -> float | None:
    """Returns one cell as a number."""
    try:
        return pa.scalar(cell).cast(_NUMBERS[dtype]).as_py()
    except pa.ArrowInvalid:
        return None
