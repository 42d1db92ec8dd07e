"""Jobs that publish what they learn while they train, to real servers on loopback."""

import contextlib
import json
import os
import subprocess
import sys
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.serving import server as server_lib
from tests.experiment import clicking_job
from tests.experiment import counting_job

_DEAD = "127.0.0.1:1"


class Job(counting_job.Job):
    """The counting job, whose served answers are counts too."""

    def train(self, *overrides, to=(), **publish):
        given = ["export.spare_rows=500", *overrides]
        if to:
            settings = {"every_secs": 0.01, "closing_secs": 20, **publish}
            given.append(f"publish.to=[{','.join(to)}]")
            given += [f"publish.{key}={value}" for key, value in settings.items()]
        super().train(*given)

    def export(self):
        job = estimator_lib.Estimator(self.config, "export.spare_rows=500")
        return job.export_saved_model().parent

    def served(self, address):
        """How often each row was trained on, as a server knows it."""
        with grpc.insecure_channel(address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "default"
            rows = np.arange(self.num_rows)
            request.inputs["row"].CopyFrom(tf.make_tensor_proto(rows, tf.int64))
            return tf.make_ndarray(
                stub.Predict(request, timeout=20).outputs["click"]
            ).tolist()


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return Job(tmp_path)


@contextlib.contextmanager
def _serving(folder):
    with server_lib.ModelServer(folder, port=0) as server:
        yield f"127.0.0.1:{server.port}"


def test_servers_get_what_the_job_learns_without_a_checkpoint(job):
    job.add(50)
    job.train()
    folder = job.export()
    job.add(300)
    with _serving(folder) as one, _serving(folder) as two:
        assert job.served(one) == [1] * 50 + [0] * 300
        job.train("trainer.epochs=2", to=[one, _DEAD, two], closing_secs=8)
        for address in (one, two):
            assert job.served(address) == job.counts().tolist()
    last = job.records("publish")
    assert sum(record["updates"] for record in last) >= 4
    assert sum(record["failures"] for record in last) > 0
    assert sum(record["inserted"] for record in last) == 2 * 300
    assert last[-1][f"{_DEAD}/age_secs"] > 0


def _killed_after(job, wanted, *overrides):
    """Trains in a process of its own, until its records are wanted; kills it then."""
    output = job.folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "monolith_tf", "train", str(job.config), *overrides],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=file,
            stderr=file,
        )
    log = job.folder / "model" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    try:
        while True:
            lines = log.read_text().splitlines() if log.exists() else []
            if wanted([json.loads(line) for line in lines if line.endswith("}")]):
                return
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_job_that_was_killed_takes_its_servers_back(tmp_path):
    job = clicking_job.Job(tmp_path)
    job.train("trainer.max_steps=10")
    version = job.export()
    # Ids that only the lost part of the run sees.
    path = job.write(100_000, users=100, name="more")
    with clicking_job.serving(version) as address:
        publish = [
            f"data.train={path}",
            "data.batch_size=4",  # So that it takes its time.
            *job.publish_to([address], guard=None),
        ]
        _killed_after(
            job,
            lambda records: sum(r.get("updates", 0) for r in records) >= 3,
            *publish,
            "trainer.checkpoint_every_secs=1000",
        )
        ahead = clicking_job.state(address)
        assert ahead["step"] > 12
        job.train(*publish, "trainer.max_steps=12")
        back = clicking_job.state(address)
        assert back["step"] == 12
        assert len(back["rows"]) < len(ahead["rows"])
        with clicking_job.serving(job.export()) as fresh:
            assert back == clicking_job.state(fresh)
