"""Lets the workers of a cluster read spans that the chief has planned.

As in `data.feed`, functions traced by the chief call Python functions of the worker by
their tokens. Each worker has its own connection to the brokers.
"""

import collections
import threading
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from monolith_tf.data import pipeline
from monolith_tf.data.stream.events import Events
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.windows import Window
from monolith_tf.features.columns import ColumnType
from monolith_tf.types import Tensor

if TYPE_CHECKING:
    from monolith_tf.data.stream.reading import SpanReader

_BATCH_BITS = 20  # Of a batch's number: its place in the span.
_ENDLESS = 1 << 62
_END = -1
_KEPT_NEWS = 10_000
PIECES = tf.TensorSpec([None, 6], tf.int64)


class Piece(NamedTuple):
    """A part of a span for a worker.

    Attributes:
      span: The span.
      skip: Rows of it that were trained on before the job started.
      batch: The first batch to read, counted after these rows.
    """

    span: Span
    skip: int
    batch: int


class SpanNews(NamedTuple):
    """What a worker says of the spans that it has read.

    Attributes:
      counts: Per span: its number, rows, messages, time of the newest message, then
        `SpanReader.counts` in their order, int64 [spans, 4 + counts].
      times: Per range: partition, messages, times of the earliest and the latest,
        int64 [ranges, 4].
      rows: Per row, if asked for: its span, its event time, -1 for none, and its
        partition, int64 [rows, 3].
    """

    counts: np.ndarray
    times: np.ndarray
    rows: np.ndarray


def batch_number(span: int, batch: int) -> int:
    """Returns the number of a batch of a span, which differs for all batches."""
    return (span << _BATCH_BITS) + batch


def to_numbers(pieces: Iterable[Piece]) -> np.ndarray:
    """Returns pieces as `PIECES` describes, one row per range."""
    return np.array(
        [
            (piece.span.number, piece.skip, piece.batch, *one)
            for piece in pieces
            for one in piece.span.ranges
        ],
        np.int64,
    )


def from_numbers(numbers: np.ndarray) -> list[Piece]:
    """Returns what was given to `to_numbers`."""
    ranges: dict[tuple[int, int, int], list[OffsetRange]] = {}
    for number, skip, batch, *one in numbers.tolist():
        ranges.setdefault((number, skip, batch), []).append(OffsetRange(*one))
    return [
        Piece(Span(number, tuple(found)), skip, batch)
        for (number, skip, batch), found in ranges.items()
    ]


class SpanFeed:
    """The chief's description of its workers' readers of spans."""

    def __init__(
        self,
        tokens: Sequence[str],
        columns: Mapping[str, ColumnType],
        batch_size: int,
    ) -> None:
        """Makes it.

        Args:
          tokens: TensorFlow's names of `SpanFeeder`'s functions in every worker.
          columns: The columns that they return.
          batch_size: Rows per batch.
        """
        self._give, self._news = tokens
        self._columns = dict(columns)
        self._batch_size = batch_size

    def dataset(self, pieces: Tensor) -> tf.data.Dataset:
        """Returns each batch of some pieces with its number.

        Call it inside a function that runs on a worker.

        Args:
          pieces: From `to_numbers`.
        """
        specs = [tf.TensorSpec([], tf.int64), *pipeline.signature(self._columns)]
        types = tf.constant(_digest(self._columns), tf.int64)

        def piece(index: Tensor) -> tuple[Tensor, ...]:
            arrays = tf.raw_ops.PyFunc(
                input=[types, pieces, index],
                token=self._give,
                Tout=[spec.dtype for spec in specs],
            )
            for array, spec in zip(arrays, specs, strict=True):
                array.set_shape(spec.shape)
            return tuple(arrays)

        given = tf.data.Dataset.range(_ENDLESS).map(piece)
        flat = given.take_while(lambda number, *_: number != _END)
        return pipeline.numbered_batches(
            flat, self._columns, self._batch_size, string_codes=True
        )

    def news(self, pieces: Tensor, *, with_rows: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the `SpanNews` of those of the pieces that were read.

        Call it inside a function that runs on a worker, after it has read.

        Args:
          pieces: The pieces.
          with_rows: Whether to return the times and partitions of all rows.
        """
        counts, times, rows = tf.raw_ops.PyFunc(
            input=[pieces, tf.constant(int(with_rows), tf.int64)],
            token=self._news,
            Tout=[tf.int64] * 3,
        )
        return counts, times, rows


class SpanFeeder:
    """Reads, in a worker, the spans that functions of the chief request."""

    def __init__(
        self,
        open_reader: Callable[[], "SpanReader"],
        columns: Mapping[str, ColumnType],
        batch_size: int,
    ) -> None:
        """Makes it; it connects to the brokers when it is first used.

        Args:
          open_reader: Returns a reader.
          columns: The columns to return.
          batch_size: Rows per batch.
        """
        self._open_reader = open_reader
        self._columns = dict(columns)
        self._batch_size = batch_size
        self._reader: SpanReader | None = None
        self._lock = threading.Lock()
        self._news: collections.OrderedDict[int, _News] = collections.OrderedDict()

    @property
    def output_types(self) -> list[tf.DType]:
        """The types of what `give` returns."""
        return [tf.int64, *[s.dtype for s in pipeline.signature(self._columns)]]

    def give(
        self, types: np.ndarray, pieces: np.ndarray, index: np.ndarray
    ) -> tuple[np.ndarray | np.generic, ...]:
        """Returns the number of a piece's first batch, and its rows.

        Args:
          types: What identifies the chief's columns.
          pieces: From `to_numbers`.
          index: Which piece; after the last one, the number is -1.
        """
        if int(types) != _digest(self._columns):
            raise ValueError(
                "The types of the topic's columns differ here from those in the chief, "
                "since its first messages have changed. Set `dtype` of all features."
            )
        asked = from_numbers(pieces)
        if int(index) >= len(asked):
            number, first, window = _END, 0, None
        else:
            piece = asked[int(index)]
            number, first = batch_number(piece.span.number, 0), piece.batch
            with self._lock:
                window = self._read(piece.span)
            window = _from(window, piece.skip)
        if window is None:
            window = _from(self._open().no_rows(), 0)
        return np.int64(number), *pipeline.flatten(window, first, self._columns)

    def news(self, pieces: np.ndarray, with_rows: np.ndarray) -> SpanNews:
        """Returns what it has read of some pieces, once.

        Args:
          pieces: From `to_numbers`.
          with_rows: Whether to return the rows' times and partitions, 0 or 1.
        """
        numbers = [piece.span.number for piece in from_numbers(pieces)]
        with self._lock:
            found = [self._news.pop(n) for n in numbers if n in self._news]
        width = 4 + len(self._open().counts())
        counts = np.array([one.counts for one in found], np.int64)
        times = [of_range for one in found for of_range in one.times]
        rows = [one.rows for one in found] if int(with_rows) else []
        return SpanNews(
            counts.reshape(-1, width),
            np.array(times, np.int64).reshape(-1, 4),
            np.concatenate([np.zeros([0, 3], np.int64), *rows]),
        )

    def _open(self) -> "SpanReader":
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _read(self, span: Span) -> Window:
        """Reads a span, and keeps its counts."""
        reader = self._open()
        before, messages = reader.counts(), reader.num_messages
        newest, reader.newest = reader.newest, 0
        window, read = reader.read(span)
        found = [
            span.number,
            len(window.rows),
            reader.num_messages - messages,
            reader.newest,
        ]
        reader.newest = max(reader.newest, newest)
        found += [count - before[name] for name, count in reader.counts().items()]
        times = [_times(events) for events in read if len(events.times)]
        self._news[span.number] = _News(found, times, _rows(window))
        while len(self._news) > _KEPT_NEWS:
            self._news.popitem(last=False)
        return window


class _News(NamedTuple):
    """The parts of `SpanNews` of one span."""

    counts: list[int]
    times: list[list[int]]
    rows: np.ndarray


def _rows(window: Window) -> np.ndarray:
    count = len(window.rows)
    times = np.full(count, -1) if window.times is None else window.times
    return np.stack([np.full(count, window.index), times, window.files], axis=1)


def _digest(columns: Mapping[str, ColumnType]) -> int:
    """Returns a number that identifies columns and their types."""
    known = [
        (name, one.dtype, one.is_list, one.length, one.default, one.kind)
        for name, one in columns.items()
    ]
    return zlib.crc32(repr(known).encode())


def _times(events: Events) -> list[int]:
    times = events.times
    first, last = int(times.min()), int(times.max())
    return [events.range.partition, len(times), first, last]


def _from(window: Window, skip: int) -> Window:
    return Window(
        window.index,
        window.table.slice(skip),
        window.files[skip:],
        window.rows[skip:],
    )
