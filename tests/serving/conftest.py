"""A small handmade SavedModel, a server for it, and a client."""

import json
import shutil
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.serving import publishing
from monolith_tf.serving import server as server_lib
from monolith_tf.testing import publishing as publishing_support


class Small(tf.Module):
    """click = scale * user + price + sum of history; the examples have a user."""

    def __init__(self, scale):
        super().__init__()
        self.scale = tf.Variable(float(scale))

    def signatures(self):
        def named(user, price, history, history_length):
            mask = tf.sequence_mask(history_length, tf.shape(history)[1], tf.float32)
            listed = tf.reduce_sum(tf.cast(history, tf.float32) * mask, axis=1)
            return {"click": self.scale * tf.cast(user, tf.float32) + price + listed}

        def parsed(inputs):
            feature = {"user": tf.io.FixedLenFeature([], tf.int64)}
            user = tf.io.parse_example(inputs, feature)["user"]
            return self.scale * tf.cast(user, tf.float32)

        def classify(inputs):
            score = parsed(inputs)
            classes = tf.tile([["no", "yes"]], [tf.size(score), 1])
            return {"classes": classes, "scores": tf.stack([-score, score], axis=1)}

        def regress(inputs):
            return {"outputs": parsed(inputs)}

        def text(words):
            return {"upper": tf.strings.upper(words), "raw_bytes": words}

        inputs = tf.TensorSpec([None], tf.string, name="inputs")
        words = tf.TensorSpec([None], tf.string, name="words")
        return {
            "serving_default": tf.function(named).get_concrete_function(
                user=tf.TensorSpec([None], tf.int64, name="user"),
                price=tf.TensorSpec([None], tf.float32, name="price"),
                history=tf.TensorSpec([None, None], tf.int64, name="history"),
                history_length=tf.TensorSpec([None], tf.int64, name="history_length"),
            ),
            "classify": tf.function(classify).get_concrete_function(inputs=inputs),
            "regress": tf.function(regress).get_concrete_function(inputs=inputs),
            "text": tf.function(text).get_concrete_function(words=words),
        }


def _save(scale, path):
    small = Small(scale)
    tf.saved_model.save(small, str(path), signatures=small.signatures())


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """SavedModels of scale 1, 2 and 3, in folders of these names."""
    folder = tmp_path_factory.mktemp("saved")
    for scale in (1, 2, 3):
        _save(scale, folder / str(scale))
    return folder


@pytest.fixture
def export_dir(saved, tmp_path):
    """A folder of versions with version 1."""
    folder = tmp_path / "export"
    shutil.copytree(saved / "1", folder / "1")
    return folder


@pytest.fixture
def server(export_dir):
    with server_lib.ModelServer(
        export_dir, port=0, rest_port=0, poll_secs=0.05
    ) as running:
        yield running


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture
def rest(server):
    """Sends JSON to a path, and returns status and JSON."""

    def send(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        address = f"http://127.0.0.1:{server.rest_port}/v1/models/{path}"
        try:
            with urllib.request.urlopen(address, data, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return send


@pytest.fixture
def ask():
    """Makes a `PredictRequest` of arrays."""

    def make(_signature="", _outputs=(), **inputs):
        request = predict_pb2.PredictRequest(output_filter=_outputs)
        request.model_spec.name = "default"
        request.model_spec.signature_name = _signature
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(np.asarray(value)))
        return request

    return make


@pytest.fixture
def rows():
    """Two rows of every input; scale 1 answers 4 and 9.5."""
    return {
        "user": np.array([1, 2]),
        "price": np.array([0.0, 0.5], np.float32),
        "history": np.array([[3, 0], [3, 4]]),
        "history_length": np.array([1, 2]),
    }


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job whose rows are published, with short waits between attempts."""
    monkeypatch.setattr(publishing, "_FIRST_WAIT_SECS", 0.05)
    return publishing_support.RowJob(tmp_path)
