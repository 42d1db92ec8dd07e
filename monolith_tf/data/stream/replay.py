"""Sends the rows of files to a topic, as if they were events of now."""

import dataclasses
import time
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import confluent_kafka
import orjson
import pyarrow as pa
from absl import logging

from monolith_tf.data import formats
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.stream import client_log
from monolith_tf.data.stream import plain
from monolith_tf.data.stream.events import StreamError
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import check_exists

_FLUSH_SECS = 60.0
_REQUEST_SECS = 10.0
_CHUNK_ROWS = 1024


@dataclasses.dataclass
class Sent:
    """What was sent.

    Attributes:
      messages: Messages that the brokers have stored.
      bad_rows: Rows of the files that could not be read.
      secs: Seconds that it took.
    """

    messages: int = 0
    bad_rows: int = 0
    secs: float = 0.0


def replay(
    data: DataSpec,
    stream: StreamSpec,
    columns: Mapping[str, ColumnType] | None,
    *,
    rate: float | None,
    time_column: str | None = None,
    key_column: str | None = None,
    on_progress: Callable[[Sent], None] = lambda sent: None,
) -> Sent:
    """Sends each row of the train files as a JSON object, in their order.

    Args:
      data: The files, as its train split.
      stream: Where to send them.
      columns: The columns to send; None sends those that the first file has.
      rate: Messages per second; None for as fast as the brokers take them.
      time_column: Column with the messages' timestamps, in milliseconds since 1970;
        None stamps them with the time at which they are sent.
      key_column: Column of the messages' keys, which decide the partition; None spreads
        the messages over all partitions.
      on_progress: Called about once per second.

    Raises:
      StreamError: If a message could not be stored.
      ValueError: If a row or a column cannot be read.
    """
    producer = confluent_kafka.Producer(
        {
            **stream.properties,
            "bootstrap.servers": stream.brokers,
            # Of several messages in flight, none may overtake a repeated one.
            "enable.idempotence": True,
        },
        logger=client_log.logger(),
    )
    try:
        producer.list_topics(stream.topic, timeout=_REQUEST_SECS)
    except confluent_kafka.KafkaException as error:
        raise StreamError(
            f"No answer from the brokers at {stream.brokers}: {error.args[0].str()}. "
            "Check the address."
        ) from error
    sent = Sent()
    failures: list[str] = []

    def delivered(error: Any, message: Any) -> None:
        del message
        if error is not None:
            failures.append(str(error))
        else:
            sent.messages += 1

    used = [name for name in (time_column, key_column) if name is not None]
    begin = shown = time.monotonic()
    for queued, row in enumerate(_rows(data, columns, used, sent), 1):
        _send(producer, stream.topic, row, time_column, key_column, delivered)
        now = time.monotonic()
        if failures:
            break
        if rate is not None and queued > (now - begin) * rate:
            producer.poll(queued / rate - (now - begin))
        if now - shown >= 1:
            shown, sent.secs = now, now - begin
            on_progress(sent)
    left = producer.flush(_FLUSH_SECS)
    sent.secs = time.monotonic() - begin
    if failures or left:
        why = failures[0] if failures else f"{left} messages were not stored in time"
        raise StreamError(
            f"{sent.messages} messages were stored in topic {stream.topic!r} at "
            f"{stream.brokers}, then: {why}."
        )
    return sent


def _send(
    producer: confluent_kafka.Producer,
    topic: str,
    row: dict[str, Any],
    time_column: str | None,
    key_column: str | None,
    delivered: Callable[[Any, Any], None],
) -> None:
    more: dict[str, Any] = {}
    if time_column is not None and row[time_column] is not None:
        more["timestamp"] = int(row[time_column])
        if more["timestamp"] <= 0:  # librdkafka would take the time of now.
            raise ValueError(
                f"Column `{time_column}`: a message's time must be in milliseconds "
                f"after 1970. Received: {row[time_column]}."
            )
    if key_column is not None and row[key_column] is not None:
        more["key"] = str(row[key_column]).encode()
    value = orjson.dumps({k: v for k, v in row.items() if v is not None})
    while True:
        try:
            producer.produce(topic, value, on_delivery=delivered, **more)
            producer.poll(0)
            return
        except BufferError:  # The queue is full: wait for the brokers.
            producer.poll(0.1)


def _rows(
    data: DataSpec,
    columns: Mapping[str, ColumnType] | None,
    used: Collection[str],
    sent: Sent,
) -> Iterator[dict[str, Any]]:
    reader = formats.make_reader(data, "train")
    for file in reader.files("train"):
        if columns is None:
            columns = {k: v for k, v in reader.schema(file).items() if v.is_readable}
            for name in used:
                check_exists(name, columns, "a time or key")
        for piece in reader.pieces(file):
            for block in reader.read(piece, columns):
                for bad in block.bad:
                    place = f"{file}: row {bad.row} (counting from 0): {bad.reason}."
                    if data.on_bad_row == "error":
                        raise ValueError(f"{place} Fix it, or skip bad rows.")
                    sent.bad_rows += 1
                    logging.log_first_n(logging.WARNING, "Skipped: %s", 5, place)
                table = pa.table(
                    {name: plain.plain(block.table.column(name)) for name in columns}
                )
                for chunk in table.to_batches(max_chunksize=_CHUNK_ROWS):
                    yield from chunk.to_pylist()
