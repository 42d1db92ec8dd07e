"""Tests of brokers that fail: cut connections, wrong settings, topics made again."""

import contextlib
import random
import threading
import time

import pytest

from monolith_tf.data.stream import events
from monolith_tf.data.stream import kafka
from monolith_tf.data.stream.events import OffsetRange
from monolith_tf.data.stream.spec import StreamSpec
from tests.data.stream import brokers
from tests.data.stream import proxies


@pytest.fixture(scope="module")
def proxy():
    with proxies.running() as running:
        yield running


@pytest.fixture(scope="module")
def broker(proxy):
    broker = brokers.Broker(proxy)
    with contextlib.closing(broker):
        yield broker


@pytest.fixture
def open_log(broker, proxy):
    opened = []

    def make(topic, patience=60, **more):
        more = {"brokers": broker.address, **more}
        opened.append(
            kafka.KafkaLog(StreamSpec(topic=topic, **more), "tests", patience)
        )
        return opened[-1]

    yield make
    proxy.set_down(False)
    for log in opened:
        log.close()


def test_cut_connections_lose_and_repeat_no_message(broker, proxy, open_log):
    topic = broker.create("cut", 2)
    sent = [[b"%d:%d " % (p, i) * 40 for i in range(12_000)] for p in range(2)]
    for partition in range(2):
        broker.send(topic, sent[partition], partition)
    is_over = threading.Event()

    def cut():
        draw = random.Random(7)
        while not is_over.wait(draw.uniform(0.02, 0.15)):
            proxy.cut()

    before = proxy.cuts
    log = open_log(topic)
    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        assert log.bounds({}) == {0: (0, 12_000), 1: (0, 12_000)}
        for begin in range(0, 12_000, 400):
            ranges = [OffsetRange(p, begin, begin + 400) for p in range(2)]
            for partition, found in enumerate(log.read(ranges)):
                assert found.offsets.tolist() == list(range(begin, begin + 400))
                assert list(found.values) == sent[partition][begin : begin + 400]
            time.sleep(0.02)
    finally:
        is_over.set()
        cutter.join()
    assert proxy.cuts - before > 3


def test_brokers_that_come_back_are_read_again(broker, proxy, open_log):
    topic = broker.create("back")
    broker.send(topic, [b"%d" % i for i in range(100)])
    log = open_log(topic)
    log.read([OffsetRange(0, 0, 50)])
    broker.send(topic, [b"%d" % i for i in range(100, 200)])
    proxy.set_down(True)
    threading.Timer(2, proxy.set_down, [False]).start()
    log._asked_at = -100
    assert log.bounds({})[0].high == 200
    (found,) = log.read([OffsetRange(0, 50, 200)])
    assert list(found.values) == [b"%d" % i for i in range(50, 200)]


def test_lost_brokers_end_the_reading_after_a_while(
    broker, proxy, open_log, monkeypatch
):
    monkeypatch.setattr(kafka, "_REQUEST_SECS", 0.5)
    topic = broker.create("lost")
    broker.send(topic, [b"x"] * 10)
    log = open_log(topic, patience=2)
    log.read([OffsetRange(0, 0, 10)])
    proxy.set_down(True)
    log._asked_at = -100
    with pytest.raises(events.StreamError, match="no answer from the brokers at 127"):
        log.bounds({})
    with pytest.raises(
        events.StreamError, match="offsets 10 to 19: no message has arr"
    ):
        log.read([OffsetRange(0, 10, 20)])


def test_waiting_for_brokers_can_be_stopped(broker, proxy, open_log):
    topic = broker.create("stopped")
    broker.send(topic, [b"x"] * 10)
    log = open_log(topic, patience=600)
    log.read([OffsetRange(0, 0, 10)])
    proxy.set_down(True)
    log.commit({0: 10})  # Does not wait.
    threading.Timer(1, log.stop).start()
    with pytest.raises(events.StreamError, match="was stopped"):
        log.read([OffsetRange(0, 10, 20)])


@pytest.mark.parametrize("protocol", ["SSL", "SASL_PLAINTEXT", "SASL_SSL"])
def test_brokers_without_tls_or_login_are_an_error(
    broker, open_log, monkeypatch, protocol
):
    monkeypatch.setattr(kafka, "_REQUEST_SECS", 1)
    monkeypatch.setattr(kafka, "_START_SECS", 2)
    properties = {"security.protocol": protocol}
    if protocol.startswith("SASL"):
        properties |= {
            "sasl.mechanism": "PLAIN",
            "sasl.username": "me",
            "sasl.password": "secret",
        }
    topic = broker.create(f"plain-{protocol}")
    log = open_log(topic, properties=properties)
    with pytest.raises(
        events.StreamError, match="no answer from the brokers"
    ) as caught:
        log.bounds({})
    assert "`properties` for TLS and login" in str(caught.value)
    assert "secret" not in str(caught.value)
    if protocol == "SASL_PLAINTEXT":
        assert "SASL mechanism" in str(caught.value)


def test_a_wrong_address_is_an_error_soon(open_log, monkeypatch):
    monkeypatch.setattr(kafka, "_REQUEST_SECS", 0.5)
    monkeypatch.setattr(kafka, "_START_SECS", 1)
    for address in ("127.0.0.1:1", "no-such-host.invalid:9092"):
        log = open_log("t", patience=600, brokers=address)
        with pytest.raises(events.StreamError, match=f"no answer .* at {address}"):
            log.bounds({})


def test_a_topic_made_again_has_another_id(broker, open_log):
    topic = broker.create("again")
    log = open_log(topic)
    first = log.topic_id()
    assert first == open_log(topic).topic_id()
    broker.admin.delete_topics([topic])[topic].result(10)
    log._asked_at = -100
    with pytest.raises(events.StreamError, match="have no topic 'again'"):
        log.bounds({})
    broker.create("again")
    log.bounds({})
    assert log.topic_id() not in (first, None)


def test_large_messages_are_read(broker, open_log):
    topic = broker.create("large")
    values = [b"a" * 3_000_000, b"b", b"c" * 9_000_000]
    broker.send(topic, values)
    (found,) = open_log(topic).read([OffsetRange(0, 0, 3)])
    assert list(found.values) == values
