"""A topic, a job that publishes, and model servers, whose processes a test kills."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from tests.data.stream import brokers
from tests.data.stream import proxies

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TOPIC = "events"


class Server:
    """`monolith-tf serve` on one port, however often it is started."""

    def __init__(self, loop, exports, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self._loop, self._exports, self._log = loop, exports, log
        self.start()

    def start(self):
        self.process = self._loop.run(
            *("serve", self._exports, "--port", self._port), log=self._log
        )

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.start()

    def predict(self, inputs, output, secs=60):
        """Returns a server's predictions; waits until it answers."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        deadline = time.monotonic() + secs
        with grpc.insecure_channel(self.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            while True:
                try:
                    found = stub.Predict(request, timeout=10).outputs[output]
                except grpc.RpcError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
                else:
                    return tf.make_ndarray(found)


class RealTimeLoop(contextlib.ExitStack):
    """A broker behind a proxy, a topic, and the processes of a test.

    Attributes:
      proxy: Between the broker and all of its clients.
      ids: Ids of all events sent, `[n, 2]`.
    """

    def __init__(self, folder, partitions):
        super().__init__()
        self.folder, self._partitions = folder, partitions
        self.model_dir = folder / "model"
        self.proxy = self.enter_context(proxies.running())
        self._broker = self.enter_context(brokers.Broker(self.proxy))
        self._broker.create(_TOPIC, partitions)
        self._rng = np.random.default_rng(3)
        self.ids = np.zeros([0, 2], np.int64)

    def stream(self, until):
        """Returns the config of the topic, up to a number of events."""
        each = {str(p): until // self._partitions for p in range(self._partitions)}
        stream = {"brokers": self.proxy.address, "topic": _TOPIC, "until": each}
        return json.dumps(stream | {"max_wait": 1000})

    def send(self, count):
        """Sends events, equally many to each partition."""
        ids = self._rng.integers(0, 300 + len(self.ids) // 10, [count, 2])
        clicks = (ids.sum(1) % 3 == 0).astype(int)
        events = [
            json.dumps({"user": user, "item": item, "click": click})
            for (user, item), click in zip(ids.tolist(), clicks.tolist(), strict=True)
        ]
        for partition in range(self._partitions):
            mine = events[partition :: self._partitions]
            self._broker.send(_TOPIC, mine, partition)
        self.ids = np.concatenate([self.ids, ids])

    def run(self, *arguments, log):
        """Starts a command of `monolith-tf`; it is killed at the end of the test."""
        path = os.pathsep.join([str(_ROOT), str(self.folder)])
        with (self.folder / log).open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "monolith_tf", *map(str, arguments)],
                env=os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.callback(_end, process)
        return process

    def complete(self, *arguments, log="commands.log", secs=300):
        """Runs a command to its end."""
        process = self.run(*arguments, log=log)
        assert process.wait(secs) == 0, self.log(log)

    def log(self, name):
        return (self.folder / name).read_text(errors="replace")[-6000:]

    def records(self, phase):
        with contextlib.suppress(FileNotFoundError):
            text = (self.model_dir / "metrics.jsonl").read_text()
            records = [json.loads(line) for line in text.splitlines()]
            return [record for record in records if record["phase"] == phase]
        return []

    def examples(self):
        """How many examples the job has trained on, as its log says."""
        return max((r["examples"] for r in self.records("train")), default=0)

    def kill_task(self, name):
        """Kills a task of a cluster if it runs."""
        path = self.model_dir / "cluster" / f"{name}.json"
        with contextlib.suppress(OSError, ValueError):
            os.kill(json.loads(path.read_text())["pid"], signal.SIGKILL)

    def wait_for(self, condition, process, log, secs=240):
        deadline = time.monotonic() + secs
        while not condition():
            assert process.poll() in (None, 0), self.log(log)
            assert time.monotonic() < deadline, self.log(log)
            if process.poll() == 0:
                return
            time.sleep(0.05)


def _end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
