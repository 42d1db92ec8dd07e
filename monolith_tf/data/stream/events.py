"""Messages of a topic, ranges of their offsets, and the interface of a log of them."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple
from typing import Protocol

import numpy as np


class StreamError(ConnectionError):
    """The brokers, the topic or its messages cannot be read."""


class LostMessagesError(StreamError):
    """The topic no longer holds messages that have not been read."""


class OffsetRange(NamedTuple):
    """Offsets of one partition, `begin` to `end` - 1."""

    partition: int
    begin: int
    end: int

    def __str__(self) -> str:
        return f"partition {self.partition}, offsets {self.begin} to {self.end - 1}"


@dataclasses.dataclass(frozen=True)
class Events:
    """Messages of one range, in the order of their offsets.

    A range may have fewer messages than offsets: the topic may be compacted, and marks
    of transactions take offsets too.

    Attributes:
      range: The range.
      offsets: Their offsets, int64 [messages].
      times: Their timestamps, milliseconds since 1970, int64 [messages]; -1 where a
        message has none.
      values: Their payloads; None where a message has none.
      keys: Their keys.
      headers: Their headers, as (name, value) pairs.
    """

    range: OffsetRange
    offsets: np.ndarray
    times: np.ndarray
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    headers: Sequence[Sequence[tuple[str, bytes | None]]]


class Bounds(NamedTuple):
    """The messages that a partition holds now: offsets `low` to `high` - 1."""

    low: int
    high: int


class EventLog(Protocol):
    """A topic that can be read by offsets."""

    def bounds(self, positions: Mapping[int, int]) -> dict[int, Bounds]:
        """Returns partition -> bounds now, for all partitions.

        Args:
          positions: Partition -> the next offset that will be read, if known.

        Raises:
          StreamError: If the brokers cannot be reached, or have no such topic.
        """
        ...

    def offsets_at(self, milliseconds: int) -> dict[int, int]:
        """Returns partition -> offset of the first message at a time or later.

        It is the end of the partition if there is no such message.
        """
        ...

    def read(self, ranges: Sequence[OffsetRange]) -> list[Events]:
        """Returns the messages of ranges, which must lie within the bounds.

        Raises:
          LostMessagesError: If messages of a range are gone.
          StreamError: If the messages do not arrive in time.
        """
        ...

    def topic_id(self) -> str | None:
        """Returns an id that a topic created again does not share; None if unknown."""
        ...

    def pass_to(self, offsets: Mapping[int, int]) -> None:
        """Passes over messages before some offsets, which others read.

        Brokers then say early when more messages come.
        """
        ...

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commits the next offsets to the brokers, for monitors of lag.

        It does not wait for them.
        """
        ...

    def stop(self) -> None:
        """Lets a request that another thread waits for end with a StreamError."""
        ...

    def close(self) -> None:
        """Closes the connections."""
        ...
