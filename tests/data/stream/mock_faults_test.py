"""Tests of errors that brokers answer, with librdkafka's mock brokers."""

import random

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import Producer

from monolith_tf.data.stream import kafka
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.spec import StreamSpec
from monolith_tf.testing import kafka_broker
from tests.data.stream import mock_brokers

_FETCH = [
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.INVALID_MSG,
    KafkaError._TRANSPORT,
]
_ASK = [
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError._TRANSPORT,
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_errors_and_new_leaders_lose_and_repeat_no_message(seed, monkeypatch):
    monkeypatch.setattr(kafka, "_REQUEST_SECS", 2)
    draw = random.Random(seed)
    with mock_brokers.running() as mock:
        mock.create("t", 2)
        producer = Producer(
            {"bootstrap.servers": mock.address}, logger=kafka_broker.QUIET
        )
        for row in range(2000):
            producer.produce("t", b"%d" % row, partition=row % 2)
        assert producer.flush(30) == 0
        log = kafka.KafkaLog(StreamSpec(brokers=mock.address, topic="t"), "g", 60)
        log.bounds({})
        down = None
        for begin in range(0, 1000, 50):
            for _ in range(2):
                mock.fail(mock_brokers.FETCH, draw.choice(_FETCH))
            mock.fail(mock_brokers.LIST_OFFSETS, draw.choice(_ASK))
            mock.set_leader("t", draw.randrange(2), draw.randrange(1, 4))
            if begin % 200 == 0:
                if down is not None:
                    mock.set_down(down, False)
                down = draw.randrange(1, 4)
                mock.set_down(down, True)
                for partition in range(2):
                    mock.set_leader("t", partition, down % 3 + 1)
                log._asked_at = -100
                assert log.bounds({}) == {0: (0, 1000), 1: (0, 1000)}
            ranges = [OffsetRange(p, begin, begin + 50) for p in range(2)]
            for partition, found in enumerate(log.read(ranges)):
                rows = range(begin, begin + 50)
                assert found.offsets.tolist() == list(rows)
                assert list(found.values) == [b"%d" % (2 * r + partition) for r in rows]
        mock.set_down(down, False)
        log.close()
