"""The description of a stream: topic, position, payload and waiting time."""

import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Literal

Payload = Literal["json", "tf_example", "arrow", "avro", "protobuf"]
Position = str | Mapping[int, int]

_URL = re.compile(r"kafka://([^/\s]+)/([A-Za-z0-9._-]+)")
_SERVER = re.compile(r"[^\s:,/]+:[0-9]{1,5}|\[[0-9A-Fa-f:]+\]:[0-9]{1,5}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_WORDS = {"start": ("earliest", "latest"), "until": ("end", "never")}

# Properties that the job sets: they decide which messages are read.
_OWN = frozenset(
    {
        "bootstrap.servers",
        "metadata.broker.list",
        "group.id",
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "plugin.library.paths",
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """A Kafka topic whose messages are the rows of the train split.

    The job reads each message once, in a single pass. Every checkpoint holds the next
    offset of each partition, and a resumed job continues there.

    Attributes:
      brokers: Addresses of the brokers, `host:port`, separated by commas.
      topic: The topic.
      payload: What a message's value holds: `json`, an object with a row's columns;
        `tf_example`, a serialized `tf.Example`; `arrow`, an Arrow IPC stream with any
        number of rows; `avro`, a record without a file's header; `protobuf`, a message.
      schema: File with the schema by which rows are read: for `avro` its JSON; for
        `protobuf` a `FileDescriptorSet`, as `protoc --include_imports
        --descriptor_set_out` writes it.
      schema_ids: Id -> file with the schema that a schema registry has under it. Each
        message must then begin with the header of a registry: a 0 byte and an id of
        these. Empty if messages have no header.
      message: The full name of the `protobuf` message, such as `shop.Click`.
      start: Where a new job starts: at the `earliest` message that the topic holds; at
        the `latest`, after all messages of now; at the first message of a time or
        later, in ISO 8601 with a time zone such as `2026-11-30T12:00:00Z`; or at
        offsets, `{partition: offset}`, where other partitions start at the earliest.
      until: Where the job ends: at the `end` of the topic when the job starts; `never`;
        or before the messages of a time, or of offsets, one for each partition.
      max_wait: Seconds to wait for more messages before a batch is trained that has
        fewer rows than `batch_size`.
      broker_timeout: Seconds to wait for brokers that do not answer before the job ends
        with an error; meanwhile it can be interrupted. When it starts, it waits at most
        30 seconds, since the address may be wrong.
      on_lost: What to do if the topic no longer holds the next message, or has been
        deleted and created again: raise an `error`, or `skip` to the earliest one, and
        count the lost messages.
      key_column: Column that gets each message's key, as a string; None for none.
      timestamp_column: Column that gets each message's time, in milliseconds since
        1970; None for none.
      time_column: Column with each row's event time, in milliseconds since 1970, by
        which rows are scored in windows; None takes the message's time.
      header_columns: Header -> column that gets its last value, as a string.
      properties: Properties for librdkafka, such as `security.protocol`.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    brokers: str
    topic: str
    payload: Payload = "json"
    schema: str | None = None
    schema_ids: Mapping[int, str] = dataclasses.field(default_factory=dict)
    message: str | None = None
    start: Position = "earliest"
    until: Position = "never"
    max_wait: float = 0.5
    broker_timeout: float = 300.0
    on_lost: Literal["error", "skip"] = "error"
    key_column: str | None = None
    timestamp_column: str | None = None
    time_column: str | None = None
    header_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    properties: Mapping[str, str | int | float | bool] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        servers = self.brokers.split(",")
        if not all(_SERVER.fullmatch(server.strip()) for server in servers):
            raise ValueError(
                "`brokers` must be `host:port`, or several separated by commas. "
                f"Received: brokers={self.brokers!r}."
            )
        if not _TOPIC.fullmatch(self.topic) or self.topic in (".", ".."):
            raise ValueError(
                "`topic` must be a topic's name: letters, digits, `.`, `_` and `-`. "
                f"Received: topic={self.topic!r}."
            )
        self._check_schema()
        for name in ("start", "until"):
            _check_position(name, getattr(self, name))
        if not 0 < self.max_wait <= 3600:
            raise ValueError(
                "`max_wait` must be above 0 and at most 3600 seconds. "
                f"Received: max_wait={self.max_wait}."
            )
        if self.broker_timeout <= 0:
            raise ValueError(
                "`broker_timeout` must be above 0 seconds. "
                f"Received: broker_timeout={self.broker_timeout}."
            )
        for name in self.properties:
            if name in _OWN:
                raise ValueError(
                    f"`properties` must not contain `{name}`, which the job sets. "
                    "Use `brokers`, `start` and `until`."
                )
        made = self.made_columns()
        if len(set(made)) < len(made):
            raise ValueError(
                "`key_column`, `timestamp_column` and `header_columns` must name "
                f"different columns. Received: {', '.join(made)}."
            )

    def _check_schema(self) -> None:
        """Checks that the payload has the settings that it needs, and no other."""
        has_schema = self.payload in ("avro", "protobuf")
        needed = {"schema": has_schema, "message": self.payload == "protobuf"}
        for name, is_needed in needed.items():
            if is_needed and getattr(self, name) is None:
                raise ValueError(
                    f"`{name}` must be set for the payload {self.payload}."
                )
        allowed = {**needed, "schema_ids": has_schema}
        for name, is_allowed in allowed.items():
            if getattr(self, name) and not is_allowed:
                raise ValueError(
                    f"`{name}` is not for the payload {self.payload}. "
                    f"Received: {name}={getattr(self, name)!r}."
                )
        if any(not 0 <= number < 2**32 for number in self.schema_ids):
            raise ValueError(
                "`schema_ids` must have ids of at least 0 and below 2^32. "
                f"Received: schema_ids={dict(self.schema_ids)}."
            )

    def made_columns(self) -> list[str]:
        """Returns the columns that come from a message's key, time and headers."""
        named = [self.key_column, self.timestamp_column, *self.header_columns.values()]
        return [name for name in named if name is not None]


def is_url(text: str) -> bool:
    """Returns whether a text is the URL of a topic."""
    return text.startswith("kafka://")


def of_url(url: str) -> StreamSpec:
    """Returns the stream of a URL, `kafka://HOST:PORT,HOST:PORT/TOPIC`.

    Raises:
      ValueError: If the URL is malformed.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError(
            "A stream must be `kafka://HOST:PORT/TOPIC`, with more brokers separated "
            f"by commas. Received: {url!r}."
        )
    return StreamSpec(brokers=found[1], topic=found[2])


def milliseconds(position: str) -> int:
    """Returns a time in ISO 8601 as milliseconds since 1970.

    Raises:
      ValueError: If it is not such a time, or has no time zone.
    """
    time = datetime.datetime.fromisoformat(position)
    if time.tzinfo is None:
        raise ValueError("the time has no time zone")
    return int(time.timestamp() * 1000)


def _check_position(name: str, position: Position) -> None:
    words = _WORDS[name]
    if isinstance(position, str):
        if position in words:
            return
        try:
            milliseconds(position)
        except ValueError as error:
            raise ValueError(
                f"`{name}` must be `{words[0]}`, `{words[1]}`, a time such as "
                "'2026-11-30T12:00:00Z', or offsets such as {0: 1500}. "
                f"Received: {name}={position!r}."
            ) from error
    elif not position or min(*position, *position.values(), 0) < 0:
        raise ValueError(
            f"`{name}` must map partitions to offsets of at least 0. "
            f"Received: {name}={dict(position)}."
        )
