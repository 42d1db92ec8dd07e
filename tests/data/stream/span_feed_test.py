"""Tests of spans that a worker reads for functions traced by another process."""

import json

import numpy as np
import pytest
import tensorflow as tf

from monolith_tf.data import feed as feed_lib
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.stream import span_feed
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.heard import HeardReader
from monolith_tf.data.stream.reading import SpanReader
from monolith_tf.data.stream.spans import Span
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.features.columns import ColumnType
from tests.data.stream.memory_log import MemoryLog

_COLUMNS = {"x": ColumnType(dtype="int64"), "y": ColumnType(dtype="int64", default=7)}
_DATA = DataSpec(
    stream=StreamSpec(brokers="h:1", topic="t"), batch_size=4, on_bad_row="skip"
)


@pytest.fixture(name="log")
def _log():
    log = MemoryLog(2)
    for partition in range(2):
        rows = range(100 * partition, 100 * partition + 20)
        values = [{"x": row, **({"y": 1} if row % 5 else {})} for row in rows]
        values[3] = {"y": 1}
        times = range(1000 * partition, 1000 * partition + 20)
        log.send([json.dumps(v).encode() for v in values], partition, times)
    return log


def _feed(log):
    feeder = feed_lib.Feeder(
        lambda split: None,
        _COLUMNS,
        4,
        span_feed.SpanFeeder(lambda: SpanReader(log, _DATA, _COLUMNS), _COLUMNS, 4),
    )
    feed = span_feed.SpanFeed(feeder.tokens[2:], _COLUMNS, 4)
    feed.feeder = feeder  # Which lives as long.
    return feeder, feed


def _read(feed, pieces):
    @tf.function(input_signature=[span_feed.PIECES])
    def read(pieces):
        numbers = tf.TensorArray(tf.int64, 0, dynamic_size=True)
        rows = tf.TensorArray(tf.int64, 0, dynamic_size=True, infer_shape=False)
        for number, batch in feed.dataset(pieces):
            numbers = numbers.write(numbers.size(), number)
            rows = rows.write(rows.size(), batch["x"])
        found = numbers.stack(), rows.concat()
        with tf.control_dependencies(found):
            return *found, feed.news(pieces, with_rows=True)

    numbers, rows, news = read(tf.constant(span_feed.to_numbers(pieces)))
    news = span_feed.SpanNews(*(part.numpy() for part in news))
    return numbers.numpy().tolist(), rows.numpy().tolist(), news


_FIRST = Span(5, (OffsetRange(0, 0, 5), OffsetRange(1, 0, 6)))  # 9 good rows.
_SECOND = Span(6, (OffsetRange(0, 5, 10),))
_BAD = Span(7, (OffsetRange(1, 3, 4),))


def _number(span, batch):
    return span_feed.batch_number(span, batch)


def test_batches_come_with_numbers_that_stay():
    pieces = [span_feed.Piece(_FIRST, 2, 1), span_feed.Piece(_SECOND, 0, 0)]
    found = span_feed.from_numbers(span_feed.to_numbers(pieces))
    assert found == pieces


def test_pieces_begin_at_a_batch_after_the_rows_that_are_skipped(log):
    feeder, feed = _feed(log)
    whole = [0, 1, 2, 4, 100, 101, 102, 104, 105]
    numbers, rows, _ = _read(feed, [span_feed.Piece(_FIRST, 0, 0)])
    assert numbers == [_number(5, batch) for batch in range(3)]
    assert rows == whole
    numbers, rows, _ = _read(
        feed, [span_feed.Piece(_FIRST, 2, 1), span_feed.Piece(_SECOND, 0, 0)]
    )
    assert numbers == [_number(5, 1), _number(6, 0), _number(6, 1)]
    assert rows == [*whole[6:], 5, 6, 7, 8, 9]
    assert feeder.examples == 9 + 3 + 5


def test_a_span_without_good_rows_is_passed_over(log):
    _, feed = _feed(log)
    numbers, _, news = _read(
        feed, [span_feed.Piece(_BAD, 0, 0), span_feed.Piece(_SECOND, 0, 0)]
    )
    assert numbers == [_number(6, 0), _number(6, 1)]
    assert news.counts[:, :2].tolist() == [[7, 0], [6, 5]]


def test_the_chief_counts_each_span_once(log):
    heard = HeardReader(log, _DATA, _COLUMNS)
    _, feed = _feed(log)
    _, other = _feed(log)
    pieces = [span_feed.Piece(_FIRST, 0, 0), span_feed.Piece(_BAD, 0, 0)]
    for reader in (feed, other, feed):
        _, _, news = _read(reader, pieces)
        assert heard.hear(news, {5, 7}) == {5: 9, 7: 0}
    assert heard.counts() == {
        "bad_rows": 3,
        "missing_offsets": 0,
        "defaults/y": 3,
    }
    assert (heard.num_messages, heard.newest) == (12, 1005)
    window, events = heard.read(_SECOND)
    assert len(window.rows) == 0
    times = {(e.range.partition, e.times.min(), e.times.max()) for e in events}
    assert times == {(0, 0, 4), (1, 1000, 1005), (1, 1003, 1003)}


def test_the_times_and_partitions_of_rows_come_in_their_order(log):
    _, feed = _feed(log)
    _, _, news = _read(feed, [span_feed.Piece(_SECOND, 0, 0)])
    np.testing.assert_array_equal(news.rows, [[6, time, 0] for time in range(5, 10)])


def test_a_read_error_is_kept_for_the_chief(log):
    feeder, feed = _feed(log)
    log.low[0] = 3
    with pytest.raises(tf.errors.OpError):
        _read(feed, [span_feed.Piece(_FIRST, 0, 0)])
    assert feeder.failure == "partition 0, offsets 0 to 4 is gone"
