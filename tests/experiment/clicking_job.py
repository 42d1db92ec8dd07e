"""A small job with rows and dense weights that learns who clicks, and its servers."""

import contextlib
import gc
import json

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.serving import server as server_lib

_CONFIG = """\
model_dir: {folder}/model
seed: 1
data: {{train: "{folder}/clicks.parquet", batch_size: 32, shuffle_buffer: 0}}
features:
  - {{name: user, kind: id}}
labels: [click]
default_table: {{dim: 4, optimizer: {{name: adagrad, learning_rate: 0.3}}}}
model: {{name: dcn, params: {{label: click, hidden_units: [8], batch_norm: true}}}}
trainer:
  epochs: 1
  steps_per_loop: 1
  log_every_steps: 5
  summaries: false
  optimizer: {{name: adam, learning_rate: 0.01}}
export: {{spare_rows: 500, verify_rows: 0}}
"""

USERS = 60


class Job:
    """The job; half of its users click nearly always, the others nearly never.

    Args:
      folder: Where all of it is.
    """

    def __init__(self, folder):
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(_CONFIG.format(folder=folder))
        self.write(640)

    def write(self, rows, *, users=USERS, flipped=False, name="clicks"):
        """Writes a file of clicks, by default the one that the config names."""
        rng = np.random.default_rng(rows)
        user = rng.integers(0, users, rows)
        click = (user % 2 == 0) ^ (rng.random(rows) < 0.1) ^ flipped
        table = pa.table({"user": user, "click": click.astype(np.float32)})
        path = self.folder / f"{name}.parquet"
        pq.write_table(table, path)
        return path

    def estimator(self, *overrides):
        return estimator_lib.Estimator(self.config, *overrides)

    def train(self, *overrides):
        self.estimator(*overrides).train()
        gc.collect()

    def publish_to(self, addresses, **settings):
        """Returns overrides that make the job publish."""
        given = {"every_secs": 0.01, "closing_secs": 60, **settings}
        return [
            f"publish.to=[{','.join(addresses)}]",
            *(f"publish.{key}={json.dumps(value)}" for key, value in given.items()),
        ]

    def export(self, *overrides):
        return self.estimator(
            "export.checkpoint=newest", *overrides
        ).export_saved_model(self.folder / "export")

    def records(self, phase):
        text = (self.folder / "model" / "metrics.jsonl").read_text()
        records = [json.loads(line) for line in text.splitlines()]
        return [record for record in records if record["phase"] == phase]


@contextlib.contextmanager
def serving(version):
    """Serves a version of an export; yields the address."""
    folder = version.parent.with_name(f"only-{version.name}")
    folder.mkdir(exist_ok=True)
    link = folder / version.name
    if not link.exists():
        link.symlink_to(version)
    with server_lib.ModelServer(folder, port=0) as server:
        yield f"127.0.0.1:{server.port}"


def _ask(address, key, **inputs):
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "default"
        request.model_spec.signature_name = key
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        outputs = stub.Predict(request, timeout=30).outputs
        return {name: tf.make_ndarray(value) for name, value in outputs.items()}


def served(address):
    """Returns a server's predictions for all users, and for some without a row."""
    users = np.arange(2 * USERS, dtype=np.int64)
    return _ask(address, "serving_default", user=users)["click"]


def state(address):
    """Returns all that is served: step, rows by id, dense weights, predictions."""
    dense = _ask(address, "read_dense", offset=np.int64(0), size=np.int64(1 << 20))
    listed = _ask(
        address,
        "list_embeddings",
        table=b"user",
        part=np.int64(0),
        parts=np.int64(1),
    )["ids"]
    rows = _ask(address, "read_embeddings", table=b"user", ids=listed)["rows"]
    by_id = dict(zip(listed.tolist(), map(bytes, rows), strict=True))
    return {
        "step": int(dense["step"]),
        "rows": by_id,
        "dense": dense["values"].tobytes(),
        "served": served(address).tobytes(),
    }
