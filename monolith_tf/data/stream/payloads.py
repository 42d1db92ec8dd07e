"""Decodes the payloads of messages: JSON, tf.Example and Arrow."""

import abc
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from monolith_tf.data import arrow_types
from monolith_tf.data import tf_example
from monolith_tf.data import tfrecord
from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import DType

_ARROW: dict[DType, pa.DataType] = {
    "int64": pa.int64(),
    "float32": pa.float64(),
    "string": pa.binary(),
}
_NO_VALUE = "the message has no value"


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


class Messages:
    """Turns messages into rows, with columns from keys, times and headers."""

    def __init__(self, spec: StreamSpec) -> None:
        """Makes it; the payload decides the decoder."""
        self._spec = spec
        self._decoder = _DECODERS[spec.payload]()

    def schema(self, events: Sequence[Events]) -> dict[str, ColumnType]:
        """Returns the types of the columns of sample messages; empty if there are none.

        Raises:
          ValueError: If a column of the payload has the name of one from the key, the
            time or a header.
        """
        values = [v for one in events for v in one.values if v is not None]
        found = self._decoder.schema(values)
        if not found:
            return {}
        for name in self._spec.made_columns():
            if name in found:
                raise ValueError(
                    f"`data.stream`: the column `{name}` of a key, time or header is "
                    "also in the payload. Give it another name."
                )
            is_time = name == self._spec.timestamp_column
            found[name] = ColumnType(dtype="int64" if is_time else "string")
        return found

    def blocks(
        self, events: Events, columns: Mapping[str, ColumnType]
    ) -> Iterator[Block]:
        """Yields the rows of messages; a message that has none is a bad row.

        Args:
          events: The messages.
          columns: The columns to read.
        """
        made = self._spec.made_columns()
        inner = {name: type_ for name, type_ in columns.items() if name not in made}
        has_value = [value is not None for value in events.values]
        values = [value for value in events.values if value is not None]
        offsets = events.offsets[has_value]
        empty = events.offsets[~np.array(has_value, bool)].tolist()
        lost = tuple(BadRow(offset, _NO_VALUE) for offset in empty)
        for block in self._decoder.decode(values, offsets, inner):
            table = block.table
            places = np.searchsorted(events.offsets, block.rows).tolist()
            for name in columns:
                if name in made:
                    column = self._made(name, events, places)
                    table = table.append_column(name, column)
            yield Block(table.select(list(columns)), block.rows, block.bad + lost)
            lost = ()
        if lost:
            yield Block(_no_rows(columns), np.zeros(0, np.int64), lost)

    def _made(self, name: str, events: Events, places: list[int]) -> pa.Array:
        """Returns a column that is not in the payload, of rows of some messages."""
        if name == self._spec.timestamp_column:
            times = events.times[places]
            return pa.array(times, pa.int64(), mask=times < 0)
        if name == self._spec.key_column:
            return pa.array([events.keys[place] for place in places], pa.binary())
        (header,) = (k for k, v in self._spec.header_columns.items() if v == name)
        found = [dict(events.headers[place]).get(header) for place in places]
        return pa.array(found, pa.binary())


class _Json(Decoder):
    """Each payload is an object with the columns of one row."""

    def schema(self, values: Sequence[bytes]) -> dict[str, ColumnType]:
        seen: dict[str, _Seen] = {}
        for value in values:
            for name, cell in (_object(value) or {}).items():
                seen.setdefault(name, _Seen()).add(cell)
        return {name: one.column() for name, one in seen.items() if one.is_known}

    def decode(
        self,
        values: Sequence[bytes],
        offsets: np.ndarray,
        columns: Mapping[str, ColumnType],
    ) -> Iterator[Block]:
        objects, bad = [], []
        fine = np.ones(len(values), bool)
        for place, value in enumerate(values):
            found = _object(value)
            objects.append(found or {})
            if found is None:
                fine[place] = False
                bad.append(BadRow(int(offsets[place]), _why_no_object(value)))
        arrays = []
        for name, type_ in columns.items():
            cells = [one.get(name) for one in objects]
            array, wrong = _column(cells, type_)
            arrays.append(array)
            for place in np.flatnonzero(wrong & fine).tolist():
                reason = (
                    f"column `{name}`: {_short(cells[place])} is not {_want(type_)}"
                )
                bad.append(BadRow(int(offsets[place]), reason))
            fine &= ~wrong
        table = pa.table(arrays, names=list(columns))
        if not columns:
            table = pa.table({"": np.zeros(len(values))}).select([])
        if not fine.all():
            table, offsets = table.filter(pa.array(fine)), offsets[fine]
        yield Block(table, offsets, tuple(bad))


def _object(value: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _why_no_object(value: bytes) -> str:
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return f"the value is not JSON: {error}"
    return f"the value is not a JSON object, but {_short(found)}"


def _short(cell: Any) -> str:
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _want(type_: ColumnType) -> str:
    names = {"int64": "an integer", "float32": "a number", "string": "a string"}
    plural = {"int64": "integers", "float32": "numbers", "string": "strings"}
    if type_.is_list:
        return f"a list of {plural[type_.dtype]}"
    return "true or false" if type_.kind == "bool" else names[type_.dtype]


class _Seen:
    """What the cells of one column look like."""

    def __init__(self) -> None:
        self._kinds: set[type] = set()
        self._is_list = False

    def add(self, cell: Any) -> None:
        """Adds a cell."""
        self._is_list |= isinstance(cell, list)
        self._kinds |= set(map(type, cell if isinstance(cell, list) else [cell]))

    @property
    def is_known(self) -> bool:
        """Whether any cell has a value."""
        return self._is_list or bool(self._kinds - {type(None)})

    def column(self) -> ColumnType:
        """Returns the type that the cells have in common."""
        kinds = self._kinds - {type(None)}
        if dict in kinds or list in kinds:
            return ColumnType(dtype="string", is_readable=False, written="JSON object")
        dtype: DType = "int64"
        if str in kinds:
            dtype = "string"
        elif float in kinds:
            dtype = "float32"
        kind = "bool" if kinds == {bool} else "number" if kinds else ""
        kind = "" if dtype == "string" else kind
        return ColumnType(
            dtype=dtype, is_list=self._is_list, kind=kind, written=f"JSON {dtype}"
        )


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


class _TfExample(Decoder):
    """Each payload is a serialized tf.Example with one row."""

    def schema(self, values: Sequence[bytes]) -> dict[str, ColumnType]:
        types: dict[str, ColumnType] = {}
        for value in values:
            try:
                found = tf_example.feature_types(value)
            except (ValueError, IndexError):
                continue
            for name, (dtype, is_list) in found.items():
                is_list |= name in types and types[name].is_list
                types[name] = ColumnType(dtype=dtype, is_list=is_list)
        return types

    def decode(
        self,
        values: Sequence[bytes],
        offsets: np.ndarray,
        columns: Mapping[str, ColumnType],
    ) -> Iterator[Block]:
        if not values:
            return
        records = np.array(values, object)
        dtypes = {name: type_.dtype for name, type_ in columns.items()}
        yield tfrecord.parse(records, offsets, columns, dtypes)


class _Arrow(Decoder):
    """Each payload is an Arrow IPC stream with any number of rows."""

    def schema(self, values: Sequence[bytes]) -> dict[str, ColumnType]:
        for value in values:
            table = _opened(value)
            if table is not None:
                return arrow_types.column_types(table.schema, "the first message")
        return {}

    def decode(
        self,
        values: Sequence[bytes],
        offsets: np.ndarray,
        columns: Mapping[str, ColumnType],
    ) -> Iterator[Block]:
        bad: list[BadRow] = []
        group: list[tuple[int, pa.Table]] = []
        for value, offset in zip(values, offsets.tolist(), strict=True):
            table = _opened(value)
            if table is None:
                bad.append(BadRow(offset, "the value is not an Arrow IPC stream"))
                continue
            missing = [name for name in columns if name not in table.column_names]
            if missing:
                bad.append(BadRow(offset, f"the message has no column `{missing[0]}`"))
                continue
            table = table.select(list(columns))
            if group and group[0][1].schema != table.schema:
                yield _joined(group, bad)
                group, bad = [], []
            group.append((offset, table))
        if group:
            yield _joined(group, bad)
        elif bad:
            yield Block(_no_rows(columns), np.zeros(0, np.int64), tuple(bad))


def _opened(value: bytes) -> pa.Table | None:
    try:
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return table


def _joined(group: list[tuple[int, pa.Table]], bad: list[BadRow]) -> Block:
    lengths = [table.num_rows for _, table in group]
    rows = np.repeat(np.array([offset for offset, _ in group], np.int64), lengths)
    return Block(pa.concat_tables(table for _, table in group), rows, tuple(bad))


def _no_rows(columns: Mapping[str, ColumnType]) -> pa.Table:
    return pa.table({name: pa.nulls(0) for name in columns})


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "json": _Json,
    "tf_example": _TfExample,
    "arrow": _Arrow,
}
