"""Reads a Kafka topic by offsets, without a consumer group.

librdkafka prefetches all assigned partitions in its own threads, so ranges that follow
each other cost no round trip.
"""

import collections
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TypeVar

import confluent_kafka
import numpy as np
from absl import logging
from confluent_kafka import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka import Message
from confluent_kafka import TopicPartition
from confluent_kafka import admin

from monolith_tf.data.stream import client_log
from monolith_tf.data.stream.commits import Commits
from monolith_tf.data.stream.events import Bounds
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.events import LostMessagesError
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.events import StreamError
from monolith_tf.data.stream.spec import StreamSpec

_REQUEST_SECS = 10.0
_START_SECS = 30.0
_COMMIT_SECS = 5.0
_WARNING_SECS = 10.0
_ASK_SECS = 2.0
_CONSUMED = 10_000
_MOST_HELD = 100_000
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # 0 in base64.

_LOST = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})
# No retry helps.
_HOPELESS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._FATAL,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
    }
)

_Result = TypeVar("_Result")


class KafkaLog:
    """A topic of Kafka brokers; fulfils `events.EventLog`."""

    def __init__(
        self,
        spec: StreamSpec,
        group: str,
        patience: float | None = None,
        ask_secs: float = _ASK_SECS,
    ) -> None:
        """Makes the clients; the first request connects.

        Args:
          spec: The stream.
          group: The consumer group under which offsets are committed.
          patience: Seconds without an answer or a message after which to raise an
            error; None takes the spec's `broker_timeout`.
          ask_secs: Seconds for which to trust an answer about the bounds.
        """
        self._topic = spec.topic
        self._ask_secs = ask_secs
        self._brokers = spec.brokers
        self._patience = spec.broker_timeout if patience is None else patience
        self._failure: KafkaError | None = None
        self._has_answered = False
        self._is_stopped = threading.Event()
        self._topic_id: str | None = None
        self._has_ids = True
        common = {
            **spec.properties,
            "bootstrap.servers": spec.brokers,
            "error_cb": self._keep_failure,
        }
        own = {
            "group.id": group,
            "auto.offset.reset": "error",  # Never jump over lost messages.
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
        }
        logger = client_log.logger()
        try:
            self._consumer = confluent_kafka.Consumer({**common, **own}, logger=logger)
            self._admin = admin.AdminClient(common, logger=logger)
            # Brokers that do not answer are given up after this time.
            own["session.timeout.ms"] = 6000
            self._commits = Commits(
                spec.topic,
                lambda: confluent_kafka.Consumer({**common, **own}, logger=logger),
            )
        except (KafkaException, ValueError, TypeError) as error:
            raise ValueError(f"`data.stream.properties`: {error}") from error
        self._partitions: list[TopicPartition] = []
        self._lows: dict[int, admin.ListOffsetsResultInfo] = {}
        self._highs: dict[int, admin.ListOffsetsResultInfo] = {}
        self._asked_at = -ask_secs
        self._held: dict[int, _Held] = {}

    def _keep_failure(self, error: KafkaError) -> None:
        self._failure = error

    def bounds(self, positions: Mapping[int, int]) -> dict[int, Bounds]:
        """See `EventLog.bounds`."""
        now = time.monotonic()
        if now - self._asked_at >= self._ask_secs:
            self._list()
            self._lows = self._offsets(admin.OffsetSpec.earliest())
            self._highs = self._offsets(admin.OffsetSpec.latest())
            self._asked_at = time.monotonic()
        found = {}
        for partition, low in self._lows.items():
            if partition not in self._held:
                self._go_to(partition, positions.get(partition, low.offset))
                # Some brokers count the last batch of messages only here.
                self._receive([OffsetRange(partition, 0, 0)], self._is_fetched)
            high = max(self._highs[partition].offset, self._fetched_end(partition))
            found[partition] = Bounds(low.offset, high)
        return found

    def _is_fetched(self, wanted: OffsetRange) -> bool:
        return self._fetched_end(wanted.partition) >= 0

    def _fetched_end(self, partition: int) -> int:
        """Returns the end of a partition as of the last fetch; negative if none."""
        place = TopicPartition(self._topic, partition)
        _, end = self._consumer.get_watermark_offsets(place, cached=True)
        return end

    def offsets_at(self, milliseconds: int) -> dict[int, int]:
        """See `EventLog.offsets_at`."""
        bounds = self.bounds({})
        found = self._offsets(admin.OffsetSpec.for_timestamp(milliseconds))
        at = {}
        for partition, (low, high) in bounds.items():
            offset = found[partition].offset
            if offset < 0:  # No message is so late.
                at[partition] = high
                continue
            low = max(low, offset)
            first = self._first(partition, low, high)
            if first is not None and first.timestamp()[1] < milliseconds:
                # Some brokers cannot look up times.
                low = self._search(partition, low, high, milliseconds)
            at[partition] = low
        return at

    def read(self, ranges: Sequence[OffsetRange]) -> list[Events]:
        """See `EventLog.read`."""
        for one in ranges:
            self._go_to(one.partition, one.begin)
        self._receive(ranges, lambda r: self._held[r.partition].reached >= r.end)
        return [self._held[one.partition].take(one) for one in ranges]

    def pass_to(self, offsets: Mapping[int, int]) -> None:
        """See `EventLog.pass_to`."""
        for partition, offset in offsets.items():
            self._go_to(partition, offset)

    def _receive(
        self, ranges: Sequence[OffsetRange], is_done: Callable[[OffsetRange], bool]
    ) -> None:
        """Receives messages until all ranges are done."""
        progress = warned = time.monotonic()
        while waiting := [one for one in ranges if not is_done(one)]:
            self._pause({one.partition for one in waiting})
            self._check_stopped()
            now = time.monotonic()
            if now - progress > self._patience:
                raise StreamError(self._silent(waiting[0], now - progress))
            if now - warned > _WARNING_SECS:
                logging.warning(self._silent(waiting[0], now - progress))
                self._check_lost(waiting[0].partition)
                warned = time.monotonic()
            for message in self._consumer.consume(_CONSUMED, timeout=0.1):
                if self._add(message):
                    progress = warned = time.monotonic()
                    self._failure = None

    def topic_id(self) -> str | None:
        """See `EventLog.topic_id`."""
        if not self._partitions:
            self._list()
        return self._topic_id

    def commit(self, offsets: Mapping[int, int]) -> None:
        """See `EventLog.commit`."""
        self._commits.send(offsets)

    def stop(self) -> None:
        """See `EventLog.stop`."""
        self._is_stopped.set()

    def _check_stopped(self) -> None:
        if self._is_stopped.is_set():
            raise StreamError(f"Topic {self._topic!r}: the reading was stopped.")

    def close(self) -> None:
        """See `EventLog.close`; waits some seconds for the last commit."""
        self._commits.close(_COMMIT_SECS)
        self._consumer.close()

    def _list_partitions(self) -> list[TopicPartition]:
        topics = self._consumer.list_topics(self._topic, timeout=_REQUEST_SECS).topics
        found = topics[self._topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return [TopicPartition(self._topic, p) for p in sorted(found.partitions)]

    def _list(self) -> None:
        self._partitions = self._retry(self._list_partitions)
        if not self._has_ids:
            return
        try:
            topics = confluent_kafka.TopicCollection([self._topic])
            answer = self._admin.describe_topics(topics, request_timeout=_REQUEST_SECS)
            found = answer[self._topic].result().topic_id
        except KafkaException:
            found = None
        if found is not None and str(found) != _NO_ID:
            self._topic_id = str(found)
        self._has_ids = self._topic_id is not None  # Old brokers have none.

    def _offsets(
        self, spec: admin.OffsetSpec
    ) -> dict[int, admin.ListOffsetsResultInfo]:
        """Returns partition -> an offset and its timestamp, for all partitions."""
        if not self._partitions:
            self._list()

        def ask() -> dict[int, admin.ListOffsetsResultInfo]:
            asked = {partition: spec for partition in self._partitions}
            answers = self._admin.list_offsets(
                asked,
                isolation_level=confluent_kafka.IsolationLevel.READ_COMMITTED,
                request_timeout=_REQUEST_SECS,
            )
            found = {p.partition: answer.result() for p, answer in answers.items()}
            for partition, info in found.items():
                # So answers a broker that no longer leads the partition.
                if info.offset == confluent_kafka.OFFSET_INVALID:
                    self._admin.list_topics(self._topic, timeout=_REQUEST_SECS)
                    why = f"no offset of partition {partition}"
                    code = KafkaError.LEADER_NOT_AVAILABLE
                    raise KafkaException(KafkaError(code, why))
            return found

        return self._retry(ask)

    def _retry(self, ask: Callable[[], _Result]) -> _Result:
        """Returns an answer of the brokers; asks again while that may help."""
        begin = time.monotonic()
        while True:
            self._check_stopped()
            try:
                answer = ask()
            except KafkaException as error:
                found = error.args[0]
                self._hear_failures()
                waited = time.monotonic() - begin
                if self._is_hopeless(found) or waited > self._limit():
                    raise StreamError(self._explained(found)) from error
                logging.warning("%s Trying again.", self._explained(found))
                self._is_stopped.wait(1)
            else:
                self._has_answered = True
                self._failure = None
                return answer

    def _limit(self) -> float:
        """Returns how long to wait for an answer, in seconds."""
        if self._has_answered:
            return self._patience
        return min(self._patience, _START_SECS)

    def _hear_failures(self) -> None:
        """Lets the clients report the failures of their connections."""
        self._admin.poll(0)
        if not self._held:  # Else this could take a message.
            self._consumer.poll(0)

    def _is_hopeless(self, error: KafkaError) -> bool:
        codes = {error.code()}
        if self._failure is not None:
            codes.add(self._failure.code())
        return bool(codes & _HOPELESS)

    def _explained(self, error: KafkaError) -> str:
        """Returns a message about an error of the brokers."""
        if error.code() in (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError._UNKNOWN_TOPIC,
        ):
            return (
                f"`data.stream`: the brokers at {self._brokers} have no topic "
                f"{self._topic!r}. Create it, or change `topic`."
            )
        reasons = [error.str()]
        if self._failure is not None and self._failure.str() not in reasons:
            reasons.append(self._failure.str())
        return (
            f"`data.stream`: no answer from the brokers at {self._brokers} about the "
            f"topic {self._topic!r}: {'; '.join(reasons)}. Check the addresses, and "
            "`properties` for TLS and login."
        )

    def _silent(self, waiting: OffsetRange, secs: float) -> str:
        failure = f" ({self._failure.str()})" if self._failure is not None else ""
        return (
            f"Topic {self._topic!r}, {waiting}: no message has arrived for "
            f"{secs:.0f} s{failure}."
        )

    def _go_to(self, partition: int, offset: int) -> None:
        """Lets the next messages of a partition begin at an offset."""
        held = self._held.get(partition)
        if held is not None and held.skip_to(offset):
            return
        self._seek(partition, offset)

    def _seek(self, partition: int, offset: int) -> None:
        place = TopicPartition(self._topic, partition, offset)
        if partition in self._held:
            self._consumer.incremental_unassign([place])
        self._consumer.incremental_assign([place])
        self._held[partition] = _Held(offset)

    def _add(self, message: Message) -> bool:
        """Keeps a message; returns whether the reading went on."""
        error = message.error()
        held = self._held.get(message.partition())
        if error is None:
            if held is not None:
                held.add(message)
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            if held is not None:
                held.reached = max(held.reached, message.offset())
            return False
        if error.code() in _LOST and held is not None:
            self._check_lost(message.partition())
            self._seek(message.partition(), held.reached)
            return False
        if self._is_hopeless(error):
            raise StreamError(self._explained(error))
        self._failure = error
        return False

    def _check_lost(self, partition: int) -> None:
        """Raises an error if a partition does not hold the next message."""
        offset = self._held[partition].reached
        low, high = self._bounds_now(partition)
        if offset < low:
            raise LostMessagesError(
                f"Topic {self._topic!r}, partition {partition}: the next message, at "
                f"offset {offset}, is gone. The topic begins at offset {low}, so "
                f"{low - offset} messages are lost."
            )
        if offset > high:
            raise StreamError(
                f"Topic {self._topic!r}, partition {partition}: the next message is "
                f"at offset {offset}, but the topic ends at offset {high}. It has been "
                "deleted and created again, or has lost messages."
            )

    def _bounds_now(self, partition: int) -> Bounds:
        low = self._offsets(admin.OffsetSpec.earliest())[partition].offset
        high = self._offsets(admin.OffsetSpec.latest())[partition].offset
        return Bounds(low, max(high, self._fetched_end(partition)))

    def _pause(self, needed: Iterable[int]) -> None:
        """Pauses partitions of which many messages are held; resumes needed ones."""
        for partition, held in self._held.items():
            wanted = partition not in needed and len(held.messages) >= _MOST_HELD
            place = TopicPartition(self._topic, partition)
            if wanted and not held.is_paused:
                self._consumer.pause([place])
            elif held.is_paused and not wanted:
                self._consumer.resume([place])
            held.is_paused = wanted

    def _search(self, partition: int, low: int, high: int, milliseconds: int) -> int:
        """Returns the first offset of a time or later, by bisection.

        Timestamps must not fall within the partition.
        """
        while low < high:
            middle = (low + high) // 2
            first = self._first(partition, middle, high)
            if first is None or first.timestamp()[1] >= milliseconds:
                high = middle
            else:
                low = first.offset() + 1
        return low

    def _first(self, partition: int, begin: int, end: int) -> Message | None:
        """Returns the first message of a range, if it has one."""
        self._go_to(partition, begin)
        held = self._held[partition]
        self._receive(
            [OffsetRange(partition, begin, end)],
            lambda r: held.first is not None or held.reached >= r.end,
        )
        return None if held.reached <= begin else held.first


class _Held:
    """Messages of a partition that were received but not yet returned.

    Attributes:
      messages: The messages.
      reached: All messages before this offset were received.
      is_paused: Whether the partition is paused.
    """

    def __init__(self, offset: int) -> None:
        self.messages: collections.deque[Message] = collections.deque()
        self._begin = offset
        self.reached = offset
        self.is_paused = False

    def add(self, message: Message) -> None:
        """Adds the next message."""
        if message.offset() >= self.reached:
            self.messages.append(message)
            self.reached = message.offset() + 1

    def skip_to(self, offset: int) -> bool:
        """Drops messages before an offset; returns False if a seek is needed."""
        if not self._begin <= offset <= self.reached:
            return False
        while self.messages and self.messages[0].offset() < offset:
            self.messages.popleft()
        self._begin = offset
        return True

    @property
    def first(self) -> Message | None:
        """The first message, if any."""
        return self.messages[0] if self.messages else None

    def take(self, wanted: OffsetRange) -> Events:
        """Removes and returns the messages of a range, at the beginning."""
        taken = []
        while self.messages and self.messages[0].offset() < wanted.end:
            taken.append(self.messages.popleft())
        self._begin = max(self._begin, wanted.end)
        return Events(
            wanted,
            np.array([m.offset() for m in taken], np.int64),
            np.array([m.timestamp()[1] for m in taken], np.int64),
            [m.value() for m in taken],
            [m.key() for m in taken],
            [m.headers() or () for m in taken],
        )
