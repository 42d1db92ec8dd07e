"""Measures how long a served prediction takes to follow an event."""

import time
from collections.abc import Callable

import confluent_kafka
import grpc
import numpy as np
import tensorflow as tf
from freshness_sides import events
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

_EVENTS = 16  # Of a probe, sent together.
_MOVED = 0.1  # Of a logit, relative to ids that occur in no event.
_POLL_SECS = 0.05
_LONGEST_SECS = 120.0


class Probes:
    """Ids that occur in no event but their own.

    Each probe has some events without a click, until its served prediction has
    followed, and then some with a click. The time from sending the first of these until
    the served logit has risen is a measurement. The logit is compared with that of ids
    in no event, which follows the dense weights alone.

    Args:
      case: The job.
      brokers: `host:port`.
      topic: The topic.
      server: The model server's `host:port`.
      first: Number of the first probe.
      count: How many.
    """

    def __init__(
        self,
        case: events.Case,
        brokers: str,
        topic: str,
        server: str,
        first: int,
        count: int,
    ) -> None:
        self._case = case
        self._topic = topic
        self._numbers = range(first, first + count)
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": brokers, "linger.ms": 0}
        )
        self._channel = grpc.insecure_channel(server)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = "default"
        inputs = events.requests(case, self._numbers)
        for name, value in inputs.items():
            self._request.inputs[name].CopyFrom(tf.make_tensor_proto(value))

    def measure(self, interval: float) -> np.ndarray:
        """Returns seconds of each probe; probes follow each other by an interval."""
        count = len(self._numbers)
        before = self._logits()
        for number in self._numbers:
            self._send(number, 0)
        self._wait(lambda: np.all(self._logits() < before - _MOVED))
        time.sleep(2)  # For what is under way.
        rng = np.random.default_rng(0)
        due = time.monotonic() + interval * (np.arange(count) + rng.uniform(size=count))
        sent = np.full(count, np.nan)
        seen = np.full(count, np.nan)
        before = np.full(count, np.nan)
        deadline = due[-1] + _LONGEST_SECS
        while np.isnan(seen).any():
            now = time.monotonic()
            if now > deadline:
                missing = np.isnan(seen).sum()
                raise RuntimeError(f"{missing} probes were never served.")
            logits = self._logits()
            now = time.monotonic()
            follows = np.isnan(seen) & (logits > before + _MOVED)
            seen[follows] = now
            for place in np.flatnonzero(np.isnan(sent) & (due <= now)):
                before[place] = logits[place]
                sent[place] = time.monotonic()
                self._send(self._numbers[place], 1)
            time.sleep(_POLL_SECS)
        return seen - sent

    def close(self) -> None:
        """Ends its connections."""
        self._producer.flush(10)
        self._channel.close()

    def _send(self, number: int, click: int) -> None:
        message = events.probe(self._case, number, click)
        for _ in range(_EVENTS):
            self._producer.produce(self._topic, message)
        self._producer.flush(10)

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _LONGEST_SECS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError("The served predictions of the probes do not move.")
            time.sleep(_POLL_SECS)

    def _logits(self) -> np.ndarray:
        """Returns each probe's logit above that of ids in no event."""
        outputs = self._stub.Predict(self._request, timeout=30).outputs
        p = tf.make_ndarray(next(iter(outputs.values()))).astype(np.float64)
        p = np.clip(p, 1e-9, 1 - 1e-9)
        logits = np.log(p) - np.log1p(-p)
        return logits[:-1] - logits[-1]
