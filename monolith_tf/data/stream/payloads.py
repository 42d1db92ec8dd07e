"""Turns messages into rows."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from monolith_tf.data import arrow_types
from monolith_tf.data import tf_example
from monolith_tf.data import tfrecord
from monolith_tf.data.reader import BadRow
from monolith_tf.data.reader import Block
from monolith_tf.data.stream.decoder import Decoder
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.json_payload import JsonDecoder
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType

_NO_VALUE = "the message has no value"


class Messages:
    """Turns messages into rows, with columns from keys, times and headers."""

    def __init__(self, spec: StreamSpec) -> None:
        """Makes it; the payload decides the decoder.

        Raises:
          ValueError: If a schema cannot be read.
        """
        self._spec = spec
        self._decoder = _decoder(spec)

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


def _decoder(spec: StreamSpec) -> Decoder:
    """Returns the decoder of a stream's payloads."""
    if spec.payload == "avro":
        try:
            from monolith_tf.data.stream.avro import AvroDecoder
        except ImportError as error:
            raise ImportError(
                "`data.stream.payload`: Avro needs the packages of the extra `stream`: "
                "`pip install monolith_tf[stream]`."
            ) from error
        return AvroDecoder(spec)
    if spec.payload == "protobuf":
        from monolith_tf.data.stream.protobuf import ProtobufDecoder

        return ProtobufDecoder(spec)
    makers: dict[str, Callable[[], Decoder]] = {
        "json": JsonDecoder,
        "tf_example": _TfExample,
        "arrow": _Arrow,
    }
    return makers[spec.payload]()
