"""Plans the spans of a topic: what is read next, and where reading starts and ends."""

import time
from collections.abc import Callable
from collections.abc import Mapping

from absl import logging

from monolith_tf.data.stream import spec as spec_lib
from monolith_tf.data.stream.events import Bounds
from monolith_tf.data.stream.events import EventLog
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.events import LostMessagesError
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.shares import Shares
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.stream.spans import SpanLog
from monolith_tf.data.stream.spec import StreamSpec

_SHRUNK_SECS = 30.0


class Plan:
    """Divides a topic into spans, from a position on.

    Attributes:
      number: Number of the next span.
      offsets: Partition -> next offset.
      topic_id: The topic's id; None if unknown.
      has_started_over: Whether it is another id than that of the position.
      lost: Messages that the topic no longer held when they were due.
      lag: Messages that are in no span yet, as of the last call of `next`.
    """

    def __init__(
        self,
        log: EventLog,
        spans: SpanLog,
        spec: StreamSpec,
        span_messages: Callable[[], int],
        *,
        number: int = 0,
        offsets: Mapping[int, int] | None = None,
        topic_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a plan; spans that were planned before come first.

        Args:
          log: The topic.
          spans: Where spans are kept.
          spec: The stream.
          span_messages: Returns how many messages make a full span.
          number: Number of the next span.
          offsets: Partition -> next offset; None for a new job.
          topic_id: Id of the topic that the offsets are of, if known.
          clock: Returns seconds, for `max_wait`.

        Raises:
          StreamError: If the topic cannot be read.
          ValueError: If offsets of `start` are not in the topic.
        """
        self._log = log
        self._spans = spans
        self._spec = spec
        self._span_messages = span_messages
        self._clock = clock
        self._shares = Shares()
        self._waiting_since: float | None = None
        self.number = number
        self.lost = self.lag = 0
        self._shrunk_since: float | None = None
        self.topic_id = log.topic_id()
        self.has_started_over = topic_id is not None and self.topic_id not in (
            topic_id,
            None,
        )
        if self.has_started_over:
            offsets = self._start_over()
        elif offsets is None:
            offsets = start_offsets(log, spec)
        self.offsets = dict(offsets)
        self._again = spans.resume(number, self.offsets)
        self._ends = self._end_offsets(log.bounds(self.offsets))

    @property
    def is_done(self) -> bool:
        """Whether all messages up to `until` are in spans returned so far."""
        if self._again or self._ends is None:
            return False
        return all(self.offsets.get(p, 0) >= end for p, end in self._ends.items())

    def learn(self, events: Events) -> None:
        """Takes event times from messages that were read."""
        self._shares.learn(events)

    def next(self, most: int) -> list[Span]:
        """Returns the next spans, on disk; none if too few messages have arrived.

        Args:
          most: The largest number of spans.
        """
        if self._again and self._is_gone():
            self._again = []
            self._spans.drop_from(self.number)
        if self._again:
            taken, self._again = self._again[:most], self._again[most:]
            self._advance(taken)
            return taken
        self._check_created_again()
        available = self._available()
        self.lag = sum(available.values())
        size = self._span_messages()
        planned: list[Span] = []
        while len(planned) < most and (total := sum(available.values())):
            if total < size and not self._may_be_short(available):
                break
            self._waiting_since = None
            shares = self._shares.divide(min(size, total), available)
            ranges = []
            for partition, number in shares.items():
                if number:
                    begin = self.offsets[partition]
                    ranges.append(OffsetRange(partition, begin, begin + number))
                    available[partition] -= number
            span = Span(self.number, tuple(ranges))
            self._advance([span])
            planned.append(span)
        self._spans.append(planned)
        self.lag = sum(available.values())
        return planned

    def _start_over(self) -> dict[int, int]:
        """Returns the start of a topic that was created again, if it may be read."""
        what = (
            f"Topic {self._spec.topic!r} has been deleted and created again since the "
            "checkpoint, so its offsets are of other messages."
        )
        if self._spec.on_lost == "error":
            raise LostMessagesError(
                f"{what} To read the new topic from its earliest message on, set "
                "`data.stream.on_lost` to `skip`."
            )
        logging.warning("%s Reading it from its earliest message on.", what)
        self._spans.drop_from(self.number)
        return {partition: low for partition, (low, _) in self._log.bounds({}).items()}

    def _check_created_again(self) -> None:
        """Raises an error if the topic was created again while the job runs."""
        if self.topic_id is not None and self._log.topic_id() != self.topic_id:
            raise LostMessagesError(
                f"Topic {self._spec.topic!r} has been deleted and created again. "
                "Messages that were not read from the former one are lost. The job can "
                "read the new one when it is run again, if `data.stream.on_lost` is "
                "`skip`."
            )

    def _check_shrunk(self, bounds: Mapping[int, Bounds]) -> None:
        """Raises an error if a partition still ends before the next message.

        It may do so for a moment, while another broker takes over.
        """
        behind = [
            (partition, high)
            for partition, (_, high) in bounds.items()
            if high < self.offsets.get(partition, high)
        ]
        if not behind:
            self._shrunk_since = None
            return
        (partition, high), now = behind[0], self._clock()
        if self._shrunk_since is None:
            self._shrunk_since = now
        if now - self._shrunk_since >= _SHRUNK_SECS:
            raise LostMessagesError(
                f"Topic {self._spec.topic!r}, partition {partition}: the next message "
                f"is at offset {self.offsets[partition]}, but the topic ends at offset "
                f"{high}. It has been deleted and created again, or has lost messages. "
                "To train on what it has now, start with a new `model_dir`, and "
                "`trainer.warm_start` from this one."
            )

    def _is_gone(self) -> bool:
        """Whether the topic no longer holds the next message of a partition."""
        bounds = self._log.bounds(self.offsets)
        return any(
            self.offsets.get(partition, low) < low
            for partition, (low, _) in bounds.items()
        )

    def _advance(self, spans: list[Span]) -> None:
        for span in spans:
            self.number = span.number + 1
            self.offsets.update({r.partition: r.end for r in span.ranges})

    def _available(self) -> dict[int, int]:
        """Returns partition -> messages after the last span."""
        bounds = self._log.bounds(self.offsets)
        self._check_shrunk(bounds)
        if self._ends is None:
            self._ends = self._end_offsets(bounds)
        available = {}
        for partition, (low, high) in bounds.items():
            if partition not in self.offsets:
                logging.info(
                    "Topic %r has a new partition, %d.", self._spec.topic, partition
                )
                self.offsets[partition] = low
            self._pass_lost(partition, low)
            end = high
            if self._ends is not None:
                # A partition that came after the end was found is not read.
                end = min(high, self._ends.get(partition, low))
            available[partition] = max(end - self.offsets[partition], 0)
        return available

    def _pass_lost(self, partition: int, low: int) -> None:
        """Goes to the first message of a partition if the next one is gone."""
        gone = low - self.offsets[partition]
        if gone <= 0:
            return
        what = (
            f"Topic {self._spec.topic!r}, partition {partition}: the next message, at "
            f"offset {self.offsets[partition]}, is gone. The topic begins at offset "
            f"{low}, so {gone} messages are lost."
        )
        if self._spec.on_lost == "error":
            raise LostMessagesError(
                f"{what} To continue with those that are left, set "
                "`data.stream.on_lost` to `skip`. Keep messages for longer than the "
                "job may rest: see `retention.ms` of the topic."
            )
        logging.warning("%s Skipped.", what)
        self.lost += gone
        self.offsets[partition] = low

    def _may_be_short(self, available: Mapping[int, int]) -> bool:
        """Whether a span may have fewer messages: the end is near, or time is up."""
        if self._ends is not None and all(
            self.offsets.get(p, 0) + available.get(p, 0) >= end
            for p, end in self._ends.items()
        ):
            return True
        now = self._clock()
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= self._spec.max_wait

    def _end_offsets(self, bounds: Mapping[int, Bounds]) -> dict[int, int] | None:
        """Returns partition -> end of reading; None if there is none yet."""
        until = self._spec.until
        if until == "never":
            return None
        if until == "end":
            return {partition: high for partition, (_, high) in bounds.items()}
        if isinstance(until, str):
            milliseconds = spec_lib.milliseconds(until)
            # Earlier, messages from before that time may still arrive.
            is_past = time.time() * 1000 >= milliseconds
            return self._log.offsets_at(milliseconds) if is_past else None
        missing = sorted(set(bounds) - set(until))
        if missing:
            raise ValueError(
                f"`data.stream.until` must have an offset for each partition of topic "
                f"{self._spec.topic!r}. It has none for partition {missing[0]}."
            )
        return dict(until)


def start_offsets(log: EventLog, spec: StreamSpec) -> dict[int, int]:
    """Returns partition -> offset at which a new job starts.

    Raises:
      ValueError: If the config's offsets are not in the topic.
    """
    bounds = log.bounds({})
    start = spec.start
    if start == "earliest":
        return {partition: low for partition, (low, _) in bounds.items()}
    if start == "latest":
        return {partition: high for partition, (_, high) in bounds.items()}
    if isinstance(start, str):
        return log.offsets_at(spec_lib.milliseconds(start))
    for partition, offset in start.items():
        if partition not in bounds:
            raise ValueError(
                f"`data.stream.start`: topic {spec.topic!r} has no partition "
                f"{partition}. It has {len(bounds)}."
            )
        low, high = bounds[partition]
        if not low <= offset <= high:
            raise ValueError(
                f"`data.stream.start`: partition {partition} of topic {spec.topic!r} "
                f"has offsets {low} to {high - 1}. Received: {offset}."
            )
    return {p: start.get(p, low) for p, (low, _) in bounds.items()}
