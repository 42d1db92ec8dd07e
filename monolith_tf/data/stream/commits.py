"""Commits offsets for monitors of lag, without waiting for the brokers."""

import threading
from collections.abc import Callable
from collections.abc import Mapping

import confluent_kafka
from absl import logging
from confluent_kafka import KafkaException
from confluent_kafka import TopicPartition


class Commits:
    """Commits the newest offsets in a thread of its own, with a client of its own.

    A client with a commit that the brokers do not answer takes long to close; here the
    thread is left to it.
    """

    def __init__(
        self, topic: str, make: Callable[[], confluent_kafka.Consumer]
    ) -> None:
        """Makes it; connects with the first offsets.

        Args:
          topic: The topic.
          make: Makes the client.
        """
        self._topic = topic
        self._make = make
        self._changed = threading.Condition()
        self._next: Mapping[int, int] | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def send(self, offsets: Mapping[int, int]) -> None:
        """Commits offsets, unless others are sent before it could."""
        with self._changed:
            self._next = offsets
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def close(self, timeout: float) -> None:
        """Waits for the last commit, at most some seconds."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        consumer = self._make()
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._next is not None or self._is_closed
                )
                offsets, self._next = self._next, None
            if offsets is None:
                break
            self._commit(consumer, offsets)
        consumer.close()

    def _commit(
        self, consumer: confluent_kafka.Consumer, offsets: Mapping[int, int]
    ) -> None:
        positions = [TopicPartition(self._topic, p, o) for p, o in offsets.items()]
        try:
            consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            logging.log_first_n(
                logging.WARNING,
                "The brokers take no offsets, so monitors do not see the lag of this "
                "job: %s. The position is in the checkpoints.",
                1,
                error.args[0].str(),
            )
