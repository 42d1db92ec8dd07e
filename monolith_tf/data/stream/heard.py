"""What the chief of a cluster knows of spans that its workers read."""

import collections
import time
from collections.abc import Collection
from typing import Any

import numpy as np

from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.reading import SpanReader
from monolith_tf.data.stream.span_feed import SpanNews
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.windows import Window

_PASS_SECS = 1.0


class HeardReader(SpanReader):
    """The reader of spans in a chief: it reads nothing, but counts what workers say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Makes it; arguments as for `SpanReader`."""
        super().__init__(*args, **kwargs)
        self._heard = super().counts()
        self._known: set[int] = set()  # Spans that are counted and may come again.
        self._planned = 0  # Offsets in spans.
        self._ends: dict[int, int] = {}  # Partition -> the offset after all spans.
        self._passed_at = 0.0
        self._events: collections.deque[Events] = collections.deque()

    def read(self, span: Span) -> tuple[Window, list[Events]]:
        """Returns no rows, and the times of messages that workers have read."""
        self.skip = 0
        self._planned += sum(one.end - one.begin for one in span.ranges)
        self._ends.update({one.partition: one.end for one in span.ranges})
        if time.monotonic() - self._passed_at >= _PASS_SECS:
            self._log.pass_to(self._ends)
            self._passed_at = time.monotonic()
        events = [self._events.popleft() for _ in range(len(self._events))]
        return self.no_rows(span.number), events

    def counts(self) -> dict[str, int]:
        """See base class."""
        return dict(self._heard)

    def waiting(self) -> int:
        """Returns the messages in spans that no worker has read yet."""
        read = self.num_messages + self._heard["missing_offsets"]
        return max(self._planned - read, 0)

    def hear(self, news: SpanNews, unfinished: Collection[int]) -> dict[int, int]:
        """Takes a worker's news; a span that is read several times is counted once.

        Args:
          news: The news.
          unfinished: Numbers of the spans that are not finished yet.

        Returns:
          Number of a span -> its rows.
        """
        rows = {}
        for number, num_rows, messages, newest, *counts in news.counts.tolist():
            rows[number] = num_rows
            if number in self._known:
                continue
            self._known.add(number)
            self._num_rows += num_rows
            self.num_messages += messages
            self.newest = max(self.newest, newest)
            for name, count in zip(self._heard, counts, strict=True):
                self._heard[name] += count
        for partition, count, first, last in news.times.tolist():
            times = np.full(count, last, np.int64)
            times[0] = first
            nothing = np.zeros(0, np.int64)
            place = OffsetRange(partition, 0, 0)
            self._events.append(Events(place, nothing, times, (), (), ()))
        self._known.intersection_update(unfinished)
        return rows
