"""CSV files, plain or compressed: a piece is a file."""

import collections
import dataclasses
import itertools
import mmap
import os
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.data.reader import Piece
from monolith_tf.data.reader import Reader
from monolith_tf.data.reader import check_has_columns
from monolith_tf.data.spec import DataSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_BLOCK_BYTES = 1 << 20
_GUESS_BLOCKS = 16  # Looked through at most for an element of every list column.
_MAX_SCAN_BYTES = 1 << 30
_NUMBERS = {"int64": pa.int64(), "float32": pa.float32()}
_NOUNS = {"int64": "an integer", "float32": "a number"}
_COMPRESSED = (".gz", ".zst", ".bz2")


class CsvReader(Reader):
    """Reads CSV as bytes and converts block by block.

    Converting here and not in the parser is faster, and it leaves the other rows of a
    block readable when a cell does not convert.
    """

    guesses_types = True
    holds_text = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self._quoted: dict[str, bool] = {}

    def schema(self, file: str) -> dict[str, ColumnType]:
        """See `Reader.schema`; types are guessed from the first rows.

        A column of text may hold lists, so the type of their elements is guessed too.
        """
        options = pyarrow.csv.ConvertOptions(
            null_values=["", *self.spec.null_values], strings_can_be_null=True
        )
        opened = self._open(file, options)
        types = {f.name: ColumnType(dtype=_guess(f.type)) for f in opened.schema}
        texts = {
            field.name
            for field in opened.schema
            if not pa.types.is_integer(field.type)
            and not pa.types.is_floating(field.type)
        }
        for name, dtype in self._elements(file, texts).items():
            if dtype != types[name].dtype:
                types[name] = dataclasses.replace(types[name], elements=dtype)
        return types

    def _elements(self, file: str, names: Collection[str]) -> dict[str, DType]:
        """Returns what elements of lists look like; of columns that have any.

        Lists may be empty for long: what has no element yet is looked for further on.
        """
        found: dict[str, DType] = {}
        blank = set(names)
        if not blank:
            return found
        options = pyarrow.csv.ConvertOptions(
            include_columns=sorted(blank),
            column_types=dict.fromkeys(blank, pa.binary()),
        )
        blocks = self._open(file, options)
        for batch in itertools.islice(blocks, _GUESS_BLOCKS):
            for name in sorted(blank):
                _, elements = self._split(self._with_nulls(batch.column(name)))
                elements = self._with_nulls(_trim(elements)).drop_null()
                if len(elements):
                    found[name] = _guess_cells(elements)
                    blank.discard(name)
            if not blank:
                break
        return found

    def read(self, piece: Piece, columns: Mapping[str, ColumnType]) -> Iterator[Block]:
        """See `Reader.read`."""
        malformed: list[Any] = []
        names = self._names(piece.file)
        check_has_columns(piece.file, names, columns)
        wanted = [name for name in names if name in columns] or names[:1]
        options = pyarrow.csv.ConvertOptions(
            include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary())
        )
        numbers = _Numbers(malformed, first=1 if self.spec.column_names else 2)
        try:
            quoted = self._may_be_quoted(piece.file)
            for batch in self._open(piece.file, options, malformed, quoted):
                rows, bad = numbers.take(batch.num_rows)
                yield self._convert(batch, rows, bad, columns)
            yield self._convert(None, *numbers.take(0, rest=True), columns)
        except (OSError, pa.ArrowException) as error:
            raise ValueError(
                f"{piece.file}: cannot be read from row {numbers.next_row} on: {error}"
            ) from error

    def _names(self, file: str) -> list[str]:
        """Returns the names of a file's columns."""
        options = pyarrow.csv.ConvertOptions()
        names = self._open(file, options).schema.names
        twice = [name for name, num in collections.Counter(names).items() if num > 1]
        if twice:
            raise ValueError(f"{file}: two columns are named `{twice[0]}`.")
        return names

    def _open(
        self,
        file: str,
        options: pyarrow.csv.ConvertOptions,
        malformed: list[Any] | None = None,
        quoted: bool = True,
    ) -> Any:
        """Opens a file; rows with a wrong number of cells go to `malformed`."""

        def put_aside(row: Any) -> str:
            if malformed is not None:
                malformed.append(row)
            return "skip"

        try:
            return pyarrow.csv.open_csv(
                pa.input_stream(file, compression="detect"),
                # The parser numbers rows only when it works in one thread.
                read_options=pyarrow.csv.ReadOptions(
                    use_threads=False,
                    block_size=_BLOCK_BYTES,
                    column_names=list(self.spec.column_names),
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self.spec.delimiter,
                    newlines_in_values=quoted,
                    invalid_row_handler=put_aside,
                ),
                convert_options=options,
            )
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{file}: not a readable CSV file: {error}") from error

    def _may_be_quoted(self, file: str) -> bool:
        """Returns whether a file may have quotes; parsing without them is faster."""
        if file not in self._quoted:
            size = os.path.getsize(file)
            if file.endswith(_COMPRESSED) or not 0 < size < _MAX_SCAN_BYTES:
                self._quoted[file] = True
            else:
                with (
                    open(file, "rb") as opened,
                    mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
                ):
                    self._quoted[file] = content.find(b'"') >= 0
        return self._quoted[file]

    def _convert(
        self,
        batch: pa.RecordBatch | None,
        rows: np.ndarray,
        bad: list[BadRow],
        columns: Mapping[str, ColumnType],
    ) -> Block:
        """Makes a block of a batch of cells."""
        if batch is None:
            empty = {name: pa.array([], pa.null()) for name in columns}
            return Block(pa.table(empty), rows, tuple(bad))
        arrays = []
        fine = np.ones(len(rows), bool)
        for name, type_ in columns.items():
            array, wrong = self._cells(batch.column(name), type_)
            arrays.append(array)
            for index, cell in wrong.items():
                if fine[index]:
                    reason = f"column `{name}`: {cell!r} is not {_NOUNS[type_.dtype]}"
                    bad.append(BadRow(int(rows[index]), reason))
                fine[index] = False
        table = pa.table(arrays, names=list(columns))
        if not fine.all():
            table, rows = table.filter(pa.array(fine)), rows[fine]
        return Block(table, rows, tuple(sorted(bad, key=lambda row: row.row)))

    def _cells(
        self, cells: pa.Array, type_: ColumnType
    ) -> tuple[pa.Array, dict[int, str]]:
        """Returns converted cells, and those that do not convert by their place."""
        if not type_.is_list:
            if type_.dtype == "string":
                if type_.default is not None:
                    cells = self._with_nulls(cells)
                return cells.dictionary_encode(), {}
            return _parse(self._with_nulls(_trim(cells)), type_.dtype)
        cells = self._with_nulls(cells)
        lists, elements = self._split(cells)
        wrong: dict[int, str] = {}
        if type_.dtype == "string":
            values = elements.cast(pa.binary()).dictionary_encode()
        else:
            values, wrong = _parse(self._with_nulls(_trim(elements)), type_.dtype)
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        made = pa.ListArray.from_arrays(pa.array(splits), values, mask=cells.is_null())
        return made, {int(owner[index]): cell for index, cell in wrong.items()}

    def _split(self, cells: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Returns cells as lists, and the elements of all of them."""
        lists = pc.split_pattern(
            cells.cast(pa.string(), safe=False), self.spec.list_delimiter
        )
        lists = pc.if_else(cells.is_null(), None, lists)
        return lists, lists.flatten()

    def _with_nulls(self, cells: pa.Array) -> pa.Array:
        """Makes null what stands for a missing value."""
        missing = pc.equal(pc.binary_length(cells), 0)
        if self.spec.null_values:
            names = pa.array(self.spec.null_values, pa.string()).cast(cells.type)
            missing = pc.or_(missing, pc.is_in(cells, value_set=names))
        return pc.if_else(missing, None, cells) if pc.any(missing).as_py() else cells


class _Numbers:
    """Numbers rows from 0, counting also those that the parser leaves out.

    Args:
      malformed: Rows left out so far; the parser adds to it before it gives the rows
        that come after them.
      first: The parser's number of the first row after the header.
    """

    def __init__(self, malformed: list[Any], first: int) -> None:
        self._malformed = malformed
        self._first = first
        self._seen = 0
        self.next_row = 0

    def take(self, num: int, rest: bool = False) -> tuple[np.ndarray, list[BadRow]]:
        """Returns the numbers of the next `num` rows, and the bad ones among them.

        Args:
          num: Rows that the parser gave.
          rest: Whether to return the bad rows after them too.
        """
        parts = [np.empty(0, np.int64)]
        bad: list[BadRow] = []
        while num or (rest and self._seen < len(self._malformed)):
            gap = num
            if self._seen < len(self._malformed):
                row = self._malformed[self._seen]
                gap = row.number - self._first - self.next_row
            if gap > 0:
                taken = min(gap, num)
                parts.append(np.arange(self.next_row, self.next_row + taken))
                self.next_row += taken
                num -= taken
            else:
                bad.append(BadRow(self.next_row, _wrong_width(row)))
                self.next_row += 1
                self._seen += 1
        return np.concatenate(parts), bad


def _wrong_width(row: Any) -> str:
    """Returns why a row was left out by the parser."""
    return f"{row.actual_columns} cells where {row.expected_columns} are expected"


def _trim(cells: pa.Array) -> pa.Array:
    """Returns cells as text without the spaces around it."""
    return pc.ascii_trim_whitespace(cells.cast(pa.string(), safe=False))


def _parse(cells: pa.Array, dtype: DType) -> tuple[pa.Array, dict[int, str]]:
    """Returns cells as numbers, and by their place those that are none."""
    try:
        return cells.cast(_NUMBERS[dtype]), {}
    except pa.ArrowInvalid:
        pass
    encoded = cells.dictionary_encode()
    numbers: list[float | None] = []
    wrong: dict[int, str] = {}
    for code, cell in enumerate(encoded.dictionary.cast(pa.binary()).to_pylist()):
        numbers.append(_number(cell.decode(errors="replace"), dtype))
        if numbers[-1] is None:
            wrong[code] = cell.decode(errors="replace")
    codes = encoded.indices.fill_null(-1).to_numpy()
    places = np.flatnonzero(np.isin(codes, list(wrong)))
    made = pa.array(numbers, _NUMBERS[dtype]).take(encoded.indices)
    return made, {int(place): wrong[int(codes[place])] for place in places}


def _number(cell: str, dtype: DType) -> float | None:
    """Returns one cell as a number; `true` and `false` are 1 and 0."""
    if cell.lower() in ("true", "false"):
        return int(cell.lower() == "true")
    try:
        return pa.scalar(cell).cast(_NUMBERS[dtype]).as_py()
    except pa.ArrowInvalid:
        return None


def _guess(type_: pa.DataType) -> DType:
    """Returns what a column is read as, from what the parser takes it for."""
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_):
        return "int64"
    return "float32" if pa.types.is_floating(type_) else "string"


def _guess_cells(cells: pa.Array) -> DType:
    """Returns what cells are read as: numbers, if all of them are."""
    for dtype in ("int64", "float32"):
        if not _parse(cells, dtype)[1]:
            return dtype
    return "string"
