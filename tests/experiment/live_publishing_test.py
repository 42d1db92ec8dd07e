"""Jobs that publish what they learn while they train, to real servers on loopback."""

import contextlib

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.serving import server as server_lib
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
        job.train("trainer.epochs=2", to=[one, _DEAD, two], closing_secs=2)
        for address in (one, two):
            assert job.served(address) == job.counts().tolist()
    last = job.records("publish")
    assert sum(record["updates"] for record in last) > 4
    assert sum(record["failures"] for record in last) > 0
    assert sum(record["inserted"] for record in last) == 2 * 300
    assert last[-1][f"{_DEAD}/age_secs"] > 0
