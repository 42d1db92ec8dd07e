"""Queries a model server by gRPC and REST, and compares answers."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np
import servers
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis import regression_pb2

DEFAULT = "serving_default"
_TIMEOUT_SECS = 60

Arrays = Mapping[str, np.ndarray]


class Client:
    """Queries one server.

    Args:
      server: The server.
    """

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        self._channel = server.channel()
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self._channel.close()

    def ask(self, key: str, method: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Queries a signature by gRPC.

        Args:
          key: The signature's key.
          method: "predict", "classify" or "regress".
          inputs: The signature's inputs; for the last two methods `inputs`, serialized
            examples.
        """
        if method == "predict":
            return self._predict(key, inputs)
        request: Any
        if method == "classify":
            request = classification_pb2.ClassificationRequest()
        else:
            request = regression_pb2.RegressionRequest()
        request.model_spec.name = servers.NAME
        request.model_spec.signature_name = key
        for example in inputs["inputs"].tolist():
            request.input.example_list.examples.add().ParseFromString(example)
        if method == "classify":
            rows = self._stub.Classify(request, timeout=_TIMEOUT_SECS)
            lists = [row.classes for row in rows.result.classifications]
            return {
                "classes": np.array([[c.label.encode() for c in row] for row in lists]),
                "scores": np.array([[c.score for c in row] for row in lists]),
            }
        rows = self._stub.Regress(request, timeout=_TIMEOUT_SECS)
        return {"outputs": np.array([row.value for row in rows.result.regressions])}

    def ask_at_once(self, requests: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
        """Sends several requests to the default signature, each in its own thread."""
        with futures.ThreadPoolExecutor(len(requests)) as pool:
            asked = [pool.submit(self._predict, DEFAULT, row) for row in requests]
            return [answer.result() for answer in asked]

    def ask_rest(self, key: str, inputs: Arrays) -> dict[str, np.ndarray]:
        """Queries a signature of the method Predict by REST, with whole tensors."""
        port = self._server.rest_port
        address = f"http://127.0.0.1:{port}/v1/models/{servers.NAME}:predict"
        body = {
            "signature_name": key,
            "inputs": {name: _plain(value.tolist()) for name, value in inputs.items()},
        }
        data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(address, data, timeout=_TIMEOUT_SECS) as answer:
                outputs = json.load(answer)["outputs"]
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            raise RuntimeError(f"HTTP {error.code}: {text}") from None
        # A single output has no name.
        named = outputs if isinstance(outputs, dict) else {"": outputs}
        return {name: np.array(value) for name, value in named.items()}

    def read_dense(self) -> np.ndarray:
        """Returns the dense weights, as a vector."""
        place = {"offset": np.array(0, np.int64), "size": np.array(1 << 40, np.int64)}
        return self._predict("read_dense", place, ("values", "token"))["values"]

    def send_dense(self, vector: np.ndarray, sender: Arrays) -> None:
        """Replaces the dense weights, by two requests.

        Args:
          vector: The weights.
          sender: The inputs of `update_dense` that name the sender.
        """
        middle, upload = len(vector) // 2, np.array(0, np.int64)
        for start, values in ((0, vector[:middle]), (middle, vector[middle:])):
            inputs = {
                "values": values,
                "offset": np.array(start, np.int64),
                "upload": upload,
                "is_last": np.array(start > 0),
                **sender,
            }
            # Not all outputs: a server with batching would try to merge the request.
            upload = self._predict("update_dense", inputs, ("upload",))["upload"]

    def _predict(
        self, key: str, inputs: Arrays, outputs: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        request = predict_pb2.PredictRequest()
        request.output_filter.extend(outputs)
        request.model_spec.name = servers.NAME
        request.model_spec.signature_name = key
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        answer = self._stub.Predict(request, timeout=_TIMEOUT_SECS).outputs
        return {name: tf.make_ndarray(value) for name, value in answer.items()}


def largest_difference(found: Arrays, expected: Arrays) -> float:
    """Returns the largest absolute difference between numbers of two answers."""
    return max(
        float(np.abs(found[name] - value).max())
        for name, value in expected.items()
        if value.dtype != object
    )


def compare(found: Arrays, expected: Arrays) -> None:
    """Raises `ValueError` if an answer is not the expected one.

    Args:
      found: The answer; a single output may have the name "".
      expected: The expected answer, compared to a part in 100,000.
    """
    if set(found) == {""} and len(expected) == 1:
        found = {next(iter(expected)): found[""]}
    if set(found) != set(expected):
        raise ValueError(f"Outputs {sorted(found)} instead of {sorted(expected)}.")
    for name, value in expected.items():
        if value.dtype == object:
            if found[name].tolist() != value.tolist():
                raise ValueError(f"Output `{name}`: {found[name]}, not {value}.")
        else:
            np.testing.assert_allclose(
                found[name], value, rtol=1e-5, atol=1e-6, err_msg=f"output `{name}`"
            )


def _plain(value: Any) -> Any:
    """Returns lists of numbers, and of bytes in REST's form."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value
