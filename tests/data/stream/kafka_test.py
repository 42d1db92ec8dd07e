"""Tests of reading a topic by offsets from a real broker."""

import time

import numpy as np
import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition

from monolith_tf.data.stream import events
from monolith_tf.data.stream import kafka
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.spec import StreamSpec


@pytest.fixture
def open_log(broker):
    logs = []

    def start(topic, **more):
        spec = StreamSpec(brokers=broker.address, topic=topic)
        logs.append(kafka.KafkaLog(spec, "tests", **more))
        return logs[-1]

    yield start
    for log in logs:
        log.close()


def numbered(count, first=0):
    return [b"%d" % (first + i) for i in range(count)]


def test_bounds_are_those_of_all_partitions(broker, open_log):
    topic = broker.create("bounds", 3)
    log = open_log(topic)
    assert log.bounds({}) == {0: (0, 0), 1: (0, 0), 2: (0, 0)}
    broker.send(topic, numbered(7), partition=1)
    deadline = time.monotonic() + 30
    while log.bounds({})[1] != (0, 7):
        assert time.monotonic() < deadline
    assert log.bounds({}) == {0: (0, 0), 1: (0, 7), 2: (0, 0)}


def test_ranges_are_read_in_any_order(broker, open_log):
    topic = broker.create("ranges", 2)
    broker.send(topic, numbered(1000), partition=0)
    broker.send(topic, numbered(500, first=5000), partition=1)
    log = open_log(topic)
    for begin, end in [
        (0, 10),
        (10, 300),
        (300, 301),
        (50, 60),
        (990, 1000),
        (0, 1000),
    ]:
        for partition, first in ((0, 0), (1, 5000)):
            wanted = OffsetRange(partition, min(begin, 499), min(end, 500))
            if partition == 0:
                wanted = OffsetRange(0, begin, end)
            (found,) = log.read([wanted])
            rows = range(wanted.begin, wanted.end)
            assert found.offsets.tolist() == list(rows)
            assert list(found.values) == [b"%d" % (first + row) for row in rows]


def test_several_partitions_are_read_at_once(broker, open_log):
    topic = broker.create("several", 4)
    for partition in range(4):
        broker.send(topic, numbered(100, first=1000 * partition), partition=partition)
    found = open_log(topic).read([OffsetRange(p, 10 * p, 10 * p + 5) for p in range(4)])
    assert [list(one.values) for one in found] == [
        [b"%d" % (1000 * p + 10 * p + i) for i in range(5)] for p in range(4)
    ]


def test_more_messages_than_are_held_are_all_read(broker, open_log, monkeypatch):
    monkeypatch.setattr(kafka, "_MOST_HELD", 100)
    topic = broker.create("paused", 2)
    for partition in range(2):
        broker.send(topic, numbered(30_000), partition=partition)
    log = open_log(topic)
    found = log.read([OffsetRange(0, 0, 30_000)])
    found += log.read([OffsetRange(1, 0, 30_000)])
    for one in found:
        assert list(one.values) == numbered(30_000)


def test_keys_times_and_headers_are_read(broker, open_log):
    topic = broker.create("extras")
    sent = [[("source", b"web"), ("source", b"app")], []]
    broker.send(
        topic, [b"x", b"y"], times=[1000, 2000], keys=[b"k", None], headers=sent
    )
    (found,) = open_log(topic).read([OffsetRange(0, 0, 2)])
    assert found.times.tolist() == [1000, 2000]
    assert list(found.keys) == [b"k", None]
    assert [list(headers) for headers in found.headers] == sent


def test_times_are_found(broker, open_log):
    topic = broker.create("times", 2)
    broker.send(topic, numbered(100), times=np.arange(100) * 10 + 5)
    log = open_log(topic)
    for milliseconds in (0, 5, 6, 500, 994, 995, 996, 5000):
        expected = min(max(-(-(milliseconds - 5) // 10), 0), 100)
        assert log.offsets_at(milliseconds) == {0: expected, 1: 0}


def test_a_missing_topic_is_named(broker, open_log):
    with pytest.raises(events.StreamError, match="have no topic 'nowhere'"):
        open_log("nowhere").bounds({})


def test_brokers_that_do_not_answer_are_named(monkeypatch):
    monkeypatch.setattr(kafka, "_REQUEST_SECS", 0.5)
    spec = StreamSpec(brokers="127.0.0.1:1", topic="t")
    log = kafka.KafkaLog(spec, "tests", patience=1)
    with pytest.raises(events.StreamError, match="no answer from the brokers at 127"):
        log.bounds({})
    log.close()


def test_unknown_properties_are_refused(broker):
    spec = StreamSpec(
        brokers=broker.address, topic="t", properties={"no.such.property": "1"}
    )
    with pytest.raises(ValueError, match=r"data\.stream\.properties.*no\.such"):
        kafka.KafkaLog(spec, "tests")


def test_offsets_beyond_the_end_are_an_error(broker, open_log, monkeypatch):
    monkeypatch.setattr(kafka, "_WARNING_SECS", 1)
    topic = broker.create("beyond")
    broker.send(topic, numbered(5))
    with pytest.raises(events.StreamError, match="ends at offset 5"):
        open_log(topic, patience=20).read([OffsetRange(0, 50, 60)])


def test_offsets_are_committed_when_the_log_is_closed(broker):
    topic = broker.create("committed", 2)
    broker.send(topic, numbered(10))
    spec = StreamSpec(brokers=broker.address, topic=topic)
    log = kafka.KafkaLog(spec, "committing")
    for offset in range(1, 6):
        log.commit({0: offset, 1: 0})
    log.close()
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "committing"})
    places = [TopicPartition(topic, p) for p in range(2)]
    found = consumer.committed(places, timeout=10)
    consumer.close()
    assert [place.offset for place in found] == [5, 0]
