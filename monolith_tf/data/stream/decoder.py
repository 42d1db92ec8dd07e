"""How payloads become rows."""

import abc
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_ARROW: dict[DType, pa.DataType] = {
    "int64": pa.int64(),
    "float32": pa.float64(),
    "string": pa.binary(),
}


class Decoder(abc.ABC):
    """Decodes messages with one kind of payload."""

    @abc.abstractmethod
    def schema(self, values: Sequence[bytes]) -> dict[str, ColumnType]:
        """Returns the types of the columns in a sample of payloads.

        Payloads that cannot be decoded are left out.
        """

    @abc.abstractmethod
    def decode(
        self,
        values: Sequence[bytes],
        offsets: np.ndarray,
        columns: Mapping[str, ColumnType],
    ) -> Iterator[Block]:
        """Yields the rows of messages, in order; a row's number is its offset.

        Args:
          values: The payloads.
          offsets: Their offsets, int64 [messages].
          columns: The columns to read.
        """


class RowDecoder(Decoder):
    """Decodes payloads with one row each, by way of Python values."""

    @abc.abstractmethod
    def row(self, value: bytes) -> Mapping[str, Any]:
        """Returns column -> value of a payload; a column may be missing.

        Raises:
          ValueError: If the payload cannot be decoded; the message says why.
        """

    def decode(
        self,
        values: Sequence[bytes],
        offsets: np.ndarray,
        columns: Mapping[str, ColumnType],
    ) -> Iterator[Block]:
        """See base class."""
        rows: list[Mapping[str, Any]] = []
        bad: list[BadRow] = []
        fine = np.ones(len(values), bool)
        for place, value in enumerate(values):
            try:
                rows.append(self.row(value))
            except ValueError as error:
                rows.append({})
                fine[place] = False
                bad.append(BadRow(int(offsets[place]), str(error)))
        arrays = []
        for name, type_ in columns.items():
            cells = [one.get(name) for one in rows]
            array, wrong = _column(cells, type_)
            arrays.append(array)
            for place in np.flatnonzero(wrong & fine).tolist():
                reason = f"column `{name}`: {short(cells[place])} is not {_want(type_)}"
                bad.append(BadRow(int(offsets[place]), reason))
            fine &= ~wrong
        table = pa.table(arrays, names=list(columns))
        if not columns:
            table = pa.table({"": np.zeros(len(values))}).select([])
        if not fine.all():
            table, offsets = table.filter(pa.array(fine)), offsets[fine]
        yield Block(table, offsets, tuple(bad))


def short(cell: Any) -> str:
    """Returns a value as text for a message, cut if it is long."""
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _want(type_: ColumnType) -> str:
    names = {"int64": "an integer", "float32": "a number", "string": "a string"}
    plural = {"int64": "integers", "float32": "numbers", "string": "strings"}
    if type_.is_list:
        return f"a list of {plural[type_.dtype]}"
    return "true or false" if type_.kind == "bool" else names[type_.dtype]


def _column(cells: list[Any], type_: ColumnType) -> tuple[pa.Array, np.ndarray]:
    """Returns cells as an Arrow array, null where wrong, and which are wrong."""
    convert = _converter(type_)
    if not type_.is_list:
        return _array(cells, type_, convert)
    wrong = np.array([not isinstance(cell, list | None) for cell in cells], bool)
    lists = [cell if isinstance(cell, list) else None for cell in cells]
    lengths = np.array([len(cell or ()) for cell in lists], np.int64)
    flat = list(itertools.chain.from_iterable(cell or () for cell in lists))
    values, wrong_values = _array(flat, type_, convert)
    wrong[np.repeat(np.arange(len(cells)), lengths)[wrong_values]] = True
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    absent = np.array([cell is None for cell in lists], bool)
    made = pa.ListArray.from_arrays(pa.array(splits), values)
    if absent.any():
        made = made.take(pa.array(np.arange(len(made)), mask=absent))
    return made, wrong


def _array(
    cells: list[Any], type_: ColumnType, convert: Callable[[Any], Any]
) -> tuple[pa.Array, np.ndarray]:
    """Returns scalar cells as an Arrow array, and which are wrong."""
    kinds = set(map(type, cells)) - {type(None)}
    wanted = pa.bool_() if type_.kind == "bool" else _ARROW[type_.dtype]
    if kinds <= _PLAIN[type_.dtype] and type_.kind != "bool":
        if type_.dtype == "string":
            cells = [None if cell is None else cell.encode() for cell in cells]
        try:
            return pa.array(cells, wanted), np.zeros(len(cells), bool)
        except (OverflowError, pa.ArrowException):
            pass
    values, wrong = [], np.zeros(len(cells), bool)
    for place, cell in enumerate(cells):
        try:
            values.append(None if cell is None else convert(cell))
        except (TypeError, OverflowError):
            values.append(None)
            wrong[place] = True
    return pa.array(values, wanted), wrong


_PLAIN: dict[DType, set[type]] = {"int64": {int}, "float32": {float}, "string": {str}}


def _converter(type_: ColumnType) -> Callable[[Any], Any]:
    """Returns a function that converts a cell; it raises TypeError or OverflowError."""

    def convert(cell: Any) -> Any:
        if type_.dtype == "string":
            if isinstance(cell, str):
                return cell.encode()
            if isinstance(cell, bytes):
                return cell
        elif isinstance(cell, bool):
            if type_.kind in ("bool", "amount"):
                return cell if type_.kind == "bool" else int(cell)
        elif type_.kind == "bool":
            pass
        elif type_.dtype == "float32":
            if isinstance(cell, int | float):
                return float(cell)
        elif isinstance(cell, int) and -(2**63) <= cell < 2**63:
            return cell
        raise TypeError

    return convert
