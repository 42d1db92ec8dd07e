"""Reads a topic ahead of the training, in a thread of its own."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.plan import Plan
from monolith_tf.data.stream.reading import SpanReader
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.windows import Window

_POLL_SECS = 0.02
_MOST_SPANS = 16


@dataclasses.dataclass(frozen=True)
class ReadSpan:
    """A span that was read.

    Attributes:
      span: The span.
      window: Its rows, without those that were trained on before.
      skipped: Rows that were trained on before.
      begin: Partition -> next offset before it.
      end: Partition -> next offset after it.
    """

    span: Span
    window: Window
    skipped: int
    begin: dict[int, int]
    end: dict[int, int]


class DoneSpan(NamedTuple):
    """A span that a cluster trained on before an earlier one was finished.

    Attributes:
      number: Its number.
      rows: Rows of it that were trained on.
      ranges: Its ranges.
    """

    number: int
    rows: int
    ranges: tuple[OffsetRange, ...]


class State(NamedTuple):
    """How far the reading is.

    Attributes:
      messages: Messages read since the start.
      newest: Time of the newest of them, in milliseconds since 1970; 0 if unknown.
      lag: Messages of the topic that were not read yet.
    """

    messages: int
    newest: int
    lag: int


class ReadAhead:
    """Reads spans in order, some of them ahead.

    Attributes:
      failure: The error that ended the reading, or None.
    """

    def __init__(
        self,
        start: Callable[[], tuple[Plan, SpanReader]],
        *,
        max_spans: int = 2 * _MOST_SPANS,
        done: Sequence[DoneSpan] = (),
    ) -> None:
        """Starts to read.

        Args:
          start: Returns the plan and the reader; called in the thread that reads.
          max_spans: Spans to read ahead.
          done: Later spans of which rows were trained on before.
        """
        self._start = start
        self._max_spans = max_spans
        self._done = {span.number: span for span in done}
        self._read: collections.deque[ReadSpan] = collections.deque()
        self._changed = threading.Condition()
        self._is_done = self._is_closed = False
        self.failure: Exception | None = None
        self._plan: Plan | None = None
        self._reader: SpanReader | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> ReadSpan | None:
        """Returns the next span, or None if there is none in time.

        Raises:
          Exception: `failure`.
        """
        with self._changed:
            self._changed.wait_for(self._has_news, timeout)
            if self._read:
                span = self._read.popleft()
                self._changed.notify_all()
                return span
            if self.failure is not None:
                raise self.failure
            return None

    @property
    def is_done(self) -> bool:
        """Whether the last span was taken."""
        with self._changed:
            return self._is_done and not self._read

    def counts(self) -> dict[str, int]:
        """Returns the reader's counts, and the messages that were lost."""
        if self._reader is None or self._plan is None:
            return {}
        return {**self._reader.counts(), "lost_messages": self._plan.lost}

    def state(self) -> State | None:
        """Returns how far the reading is; None before it starts."""
        if self._reader is None or self._plan is None:
            return None
        return State(self._reader.num_messages, self._reader.newest, self._plan.lag)

    @property
    def topic_id(self) -> str | None:
        """The topic's id; None if unknown."""
        return None if self._plan is None else self._plan.topic_id

    @property
    def has_started_over(self) -> bool:
        """Whether the topic is another one than that of the position."""
        return self._plan is not None and self._plan.has_started_over

    def close(self) -> None:
        """Stops reading."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout=30)

    def _has_news(self) -> bool:
        return bool(self._read) or self._is_done or self.failure is not None

    def _run(self) -> None:
        try:
            self._plan, self._reader = self._start()
            if self._plan.has_started_over:  # The position is of other messages.
                self._reader.skip = 0
                self._done.clear()
            while not self._is_closed and not self._plan.is_done:
                self._read_some(self._plan, self._reader)
        except Exception as error:
            with self._changed:
                self.failure = error
                self._changed.notify_all()
        with self._changed:
            self._is_done = self.failure is None
            self._changed.notify_all()

    def _read_some(self, plan: Plan, reader: SpanReader) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_closed or len(self._read) < self._max_spans
            )
        offsets = dict(plan.offsets)
        spans = plan.next(_MOST_SPANS)
        if not spans:
            time.sleep(_POLL_SECS)
        for span in spans:
            if self._is_closed:
                return
            done = self._done.pop(span.number, None)
            if done is not None and done.ranges == span.ranges:
                reader.skip = done.rows
            skipped = reader.skip
            window, messages = reader.read(span)
            for events in messages:
                plan.learn(events)
            begin = {**offsets, **{r.partition: r.begin for r in span.ranges}}
            offsets = {**begin, **{r.partition: r.end for r in span.ranges}}
            with self._changed:
                self._read.append(ReadSpan(span, window, skipped, begin, offsets))
                self._changed.notify_all()


def position(
    topic: str,
    number: int,
    offsets: dict[int, int],
    rows: int = 0,
    done: Sequence[DoneSpan] = (),
    topic_id: str | None = None,
) -> Any:
    """Returns a position as JSON, for a checkpoint; see also `StreamSource.position`.

    Args:
      topic: The topic.
      number: Number of the next span.
      offsets: Partition -> next offset.
      rows: Rows of the next span that were trained on already.
      done: Later spans of which rows were trained on already.
      topic_id: The topic's id, if known.
    """
    later = {"done": [[one.number, one.rows, one.ranges] for one in done]}
    return {
        **({} if topic_id is None else {"topic_id": topic_id}),
        "topic": topic,
        "span": number,
        "offsets": {str(p): offset for p, offset in sorted(offsets.items())},
        "rows": rows,
        **(later if done else {}),
    }


def done_spans(position: Mapping[str, Any]) -> list[DoneSpan]:
    """Returns the later spans of a position of which rows were trained on."""
    return [
        DoneSpan(number, rows, tuple(OffsetRange(*one) for one in ranges))
        for number, rows, ranges in position.get("done", ())
    ]
