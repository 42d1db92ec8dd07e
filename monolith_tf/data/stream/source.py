"""A topic as the train split of a job."""

import contextlib
import pathlib
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from monolith_tf.data.batch_source import UNKNOWN_FILES
from monolith_tf.data.batch_source import RowPlace
from monolith_tf.data.batch_source import RowRange
from monolith_tf.data.rows import Filled
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.stream import read_ahead
from monolith_tf.data.stream.events import EventLog
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.plan import Plan
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.stream.spans import SpanLog
from monolith_tf.data.windows import Cut
from monolith_tf.data.windows import Window
from monolith_tf.features.columns import ColumnType

if TYPE_CHECKING:
    import tensorflow as tf

    from monolith_tf.data.stream.heard import HeardReader
    from monolith_tf.data.stream.reading import SpanReader
    from monolith_tf.data.stream.span_feed import SpanNews

_SAMPLE = 200
_ASK_SECS = 0.2


class StreamSource:
    """The messages of a topic; fulfils `BatchSource`.

    Attributes:
      failure: The error that ended a dataset's iteration, or None.
    """

    def __init__(
        self, data: DataSpec, columns: Mapping[str, ColumnType], group: str
    ) -> None:
        """Makes the source; nothing is read yet.

        Args:
          data: The description of the data.
          columns: The columns to read.
          group: The consumer group under which offsets are committed.
        """
        if data.stream is None:
            raise ValueError("`data` describes no stream.")
        self._data = data
        self._stream = data.stream
        self._columns = dict(columns)
        self._group = group
        self._ahead: read_ahead.ReadAhead | None = None
        self._log: EventLog | None = None
        self._spans: SpanLog | None = None
        self._held: tuple[int, Window] | None = None
        self._heard: HeardReader | None = None
        self._done: list[read_ahead.DoneSpan] = []
        self.failure: Exception | None = None

    @property
    def topic(self) -> str:
        """The topic."""
        return self._stream.topic

    @property
    def columns(self) -> dict[str, ColumnType]:
        """The columns that are read."""
        return dict(self._columns)

    @property
    def batch_size(self) -> int:
        """Rows per batch."""
        return self._data.batch_size

    @property
    def marks(self) -> tuple[()]:
        """Nothing: there are no files."""
        return ()

    @property
    def filled(self) -> Filled:
        """Nothing: `counts` counts defaults."""
        return {}

    def counts(self) -> dict[str, int]:
        """Returns name -> count of problems found so far, and messages lost."""
        return {} if self._ahead is None else self._ahead.counts()

    def state(self) -> read_ahead.State | None:
        """Returns how far the reading is; None before it starts."""
        found = None if self._ahead is None else self._ahead.state()
        if found is None or self._heard is None:
            return found
        return found._replace(lag=found.lag + self._heard.waiting())

    def identity(self, batch_size: int | None = None) -> dict[str, Any]:
        """Returns nothing: positions are offsets."""
        del batch_size
        return {}

    def files_digest(self) -> int:
        """Returns that there are no files to compare."""
        return UNKNOWN_FILES

    def batches_per_epoch(self) -> None:
        """Returns None: a stream has no epochs."""

    def read_from(
        self,
        position: Mapping[str, Any] | None,
        folder: pathlib.Path,
        *,
        ahead_for_workers: int = 0,
    ) -> read_ahead.ReadAhead:
        """Starts to read the topic for training.

        Args:
          position: The position of a checkpoint, as `read_ahead.position`; None for a
            topic that the job has not read.
          folder: Folder for the spans of all topics.
          ahead_for_workers: If the workers of a cluster read, how many spans to plan
            ahead for them; the spans then come without rows. See `hear`.
        """
        number, offsets, skip, topic_id = 0, None, 0, None
        more: dict[str, Any] = {}
        if ahead_for_workers:
            more["max_spans"] = ahead_for_workers
        if position:
            topic_id = position.get("topic_id")
            self._done = more["done"] = read_ahead.done_spans(position)
            number, skip = position["span"], position["rows"]
            offsets = {int(p): offset for p, offset in position["offsets"].items()}

        def start() -> tuple[Plan, "SpanReader"]:
            from monolith_tf.data.stream.heard import HeardReader
            from monolith_tf.data.stream.reading import SpanReader

            # Workers read, so the chief sees only from answers what has come.
            often = {"ask_secs": _ASK_SECS} if ahead_for_workers else {}
            log = self._log = self.open_log(**often)
            spans = self._spans = SpanLog(folder / self.topic)
            kind = HeardReader if ahead_for_workers else SpanReader
            reader = kind(log, self._data, self._columns, skip=skip)
            if isinstance(reader, HeardReader):
                self._heard = reader
            plan = Plan(
                log,
                spans,
                self._stream,
                lambda: reader.messages_of(self._data.batch_size),
                number=number,
                offsets=offsets,
                topic_id=topic_id,
            )
            return plan, reader

        self._ahead = read_ahead.ReadAhead(start, **more)
        return self._ahead

    def position(
        self,
        number: int,
        offsets: dict[int, int],
        rows: int = 0,
        done: Sequence[read_ahead.DoneSpan] | None = None,
    ) -> Any:
        """Returns a position as JSON, for a checkpoint.

        Args:
          number: Number of the next span.
          offsets: Partition -> next offset.
          rows: Rows of the next span that were trained on already.
          done: Later spans of which rows were trained on already; None for those of the
            position at which reading started.
        """
        if self._ahead is None:
            raise ValueError("`read_from` must be called first.")
        if done is None:
            before = [] if self._ahead.has_started_over else self._done
            done = [one for one in before if one.number > number]
        topic_id = self._ahead.topic_id
        return read_ahead.position(self.topic, number, offsets, rows, done, topic_id)

    def hear(self, news: "SpanNews", unfinished: Collection[int]) -> dict[int, int]:
        """Takes a worker's news; see `HeardReader.hear`."""
        if self._heard is None:
            raise ValueError("`read_from` must be called for workers first.")
        return self._heard.hear(news, unfinished)

    def rows_of(self, messages: int) -> int:
        """Returns about how many rows some messages have, at least one each."""
        return messages if self._heard is None else self._heard.rows_of(messages)

    def hold_of(self, batch: int, span: Span, rows: int) -> None:
        """As `hold`, but reads the rows, which a worker has trained on.

        Args:
          batch: Number of their first batch.
          span: Their span.
          rows: Rows of it before them.
        """
        from monolith_tf.data.stream.reading import SpanReader

        with contextlib.closing(self.open_log()) as log:
            reader = SpanReader(log, self._data, self._columns, skip=rows)
            window, _ = reader.read(span)
        self.hold(batch, window)

    def hold(self, batch: int, window: Window) -> None:
        """Keeps the rows that are trained on now, for messages about a bad batch.

        Args:
          batch: Number of their first batch.
          window: The rows.
        """
        self._held = batch, window

    def commit(self, position: Mapping[str, Any]) -> None:
        """Commits a checkpoint's offsets to the brokers, for monitors of lag."""
        if self._log is not None:
            self._log.commit({int(p): o for p, o in position["offsets"].items()})

    def forget_spans(self, before: int) -> None:
        """Removes spans before a number, which no checkpoint needs any more."""
        if self._spans is not None:
            self._spans.forget_before(before)

    def close(self) -> None:
        """Ends what `read_from` started."""
        if self._log is not None:
            self._log.stop()
        if self._ahead is not None:
            self._ahead.close()
        if self._log is not None:
            self._log.close()

    def open_reader(self) -> "SpanReader":
        """Connects to the brokers; returns a reader of spans."""
        from monolith_tf.data.stream.reading import SpanReader

        return SpanReader(self.open_log(), self._data, self._columns)

    def open_log(self, **options: float) -> EventLog:
        """Connects to the brokers; options as for `KafkaLog`."""
        try:
            from monolith_tf.data.stream import kafka
        except ImportError as error:
            raise ImportError(
                "Topics need the packages of the extra `stream`: "
                "`pip install monolith_tf[stream]`."
            ) from error
        return kafka.KafkaLog(self._stream, self._group, **options)

    def schema(self) -> dict[str, ColumnType]:
        """Returns the types of the columns in the first messages; empty if none."""
        from monolith_tf.data.stream.payloads import Messages

        with contextlib.closing(self.open_log()) as log:
            sample = log.read(_heads(log, _SAMPLE))
        return Messages(self._stream).schema(sample)

    def dataset(
        self,
        epoch_start: int = 0,
        batch_start: int = 0,
        num_epochs: int | None = 1,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        string_codes: bool = False,
        cut: Cut | None = None,
    ) -> "tf.data.Dataset":
        """Returns the messages that the topic holds now, from the earliest one on.

        While the job trains, returns the rows that are trained on now.

        Args:
          epoch_start: Not used.
          batch_start: The first batch of those that are trained on now.
          num_epochs: Not used.
          batch_size: Rows per batch; None takes the config's.
          shuffle: Not used.
          string_codes: As for `Source.dataset`.
          cut: Not used.
        """
        from monolith_tf.data import pipeline

        del epoch_start, num_epochs, shuffle, cut
        size = batch_size or self._data.batch_size

        def windows() -> Iterator[tuple[Window, int]]:
            self.failure = None
            if self._held is not None and batch_start >= self._held[0]:
                yield self._held[1], batch_start - self._held[0]
                return
            try:
                with contextlib.closing(self.open_log()) as log:
                    from monolith_tf.data.stream.reading import SpanReader

                    reader = SpanReader(log, self._data, self._columns)
                    for number, one in enumerate(_pieces(log, size)):
                        window, _ = reader.read(Span(number, (one,)))
                        yield window, 0
            except Exception as error:
                self.failure = error
                raise

        return pipeline.dataset(windows, self._columns, size, string_codes)

    def locate(
        self, epoch: int, batch: int, *, cut: Cut | None = None
    ) -> list[RowRange]:
        """Returns the offsets of a batch that is trained on now; else nothing."""
        del epoch, cut
        partitions, offsets = self._places(batch)
        ranges = []
        for partition in np.unique(partitions).tolist():
            own = offsets[partitions == partition]
            where = f"topic {self.topic!r}, partition {partition}, offsets as"
            ranges.append(RowRange(where, int(own.min()), int(own.max()), len(own)))
        return ranges

    def row_place(
        self, epoch: int, batch: int, row: int, *, cut: Cut | None = None
    ) -> RowPlace:
        """Returns the partition and offset of a row that is trained on now."""
        del epoch, cut
        partitions, offsets = self._places(batch)
        if row >= len(offsets):
            return RowPlace("", f"topic {self.topic!r}")
        where = f"topic {self.topic!r}, partition {partitions[row]}"
        return RowPlace("", f"{where}, offset {offsets[row]}")

    def _places(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns partition and offset of each row of a batch that is trained on."""
        if self._held is None or batch < self._held[0]:
            return np.zeros(0, np.int32), np.zeros(0, np.int64)
        first, window = self._held
        begin = (batch - first) * self._data.batch_size
        rows = slice(begin, begin + self._data.batch_size)
        return window.files[rows], window.rows[rows]

    def is_unsigned(self, file: str, column: str) -> bool:
        """Returns False: larger integers are bad rows."""
        del file, column
        return False


def _heads(log: EventLog, size: int) -> list[OffsetRange]:
    """Returns the first messages of each partition."""
    bounds = log.bounds({})
    return [
        OffsetRange(partition, low, min(low + size, high))
        for partition, (low, high) in bounds.items()
        if high > low
    ]


def _pieces(log: EventLog, size: int) -> Iterator[OffsetRange]:
    """Yields all messages that a topic holds, one partition after another."""
    for partition, (low, high) in log.bounds({}).items():
        for begin in range(low, high, size):
            yield OffsetRange(partition, begin, min(begin + size, high))
