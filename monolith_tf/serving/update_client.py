"""The `update_embeddings` signature of a model server, from outside."""

import time
from typing import NamedTuple

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf import lineage as lineage_lib
from monolith_tf.export import updates
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import tls as tls_lib

SIGNATURE = "update_embeddings"
# Not all outputs: a server that batches would try to join such requests with others,
# and refuse them, since their inputs are not rows.
_OUTPUTS = ("inserted", "step", "token")


class BrokenError(RuntimeError):
    """What was sent so far may have been lost; start over."""


class Updated(NamedTuple):
    """A server's answer.

    Attributes:
      inserted: Ids that took a spare row.
      step: The step at which the server stands.
    """

    inserted: int
    step: int


class UpdateClient:
    """Sends row updates to one server, which refuses them when it has forgotten some.

    A server that is restarted, or goes over to another version, has only what its
    export has. So all requests but the first ask for the version that answered it, and
    carry the token that it answered, which no other start of a server gives.

    Attributes:
      address: Of the server.
      version: The version that answers; 0 before the first answer.
      answered_at: When it answered last, or this object was made, by
        `time.monotonic`.

    Args:
      address: `host:port`.
      name: What the server calls the model.
      lineage: Of the job whose rows are sent.
      newest: The step of their checkpoint.
      tls: What to connect with; None connects without TLS.
      timeout_secs: How long to wait for an answer.
    """

    def __init__(
        self,
        address: str,
        name: str,
        lineage: lineage_lib.Lineage,
        newest: int,
        *,
        tls: tls_lib.Tls | None = None,
        timeout_secs: float = 30.0,
    ) -> None:
        self.address = address
        self.version = 0
        self.answered_at = time.monotonic()
        self._timeout_secs = timeout_secs
        self._name = name
        self._lineage = lineage
        self._newest = newest
        self._channel = (
            grpc.insecure_channel(address) if tls is None else tls.connect(address)
        )
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._token = 0

    def __enter__(self) -> "UpdateClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; a request that waits for its answer fails."""
        self._channel.close()

    def update(self, rows: changed_rows.Rows, *, step: int = 0) -> Updated:
        """Sends rows of one table.

        Args:
          rows: The rows; they may be none.
          step: The step at which the server stands once it has them; 0 leaves it.

        Raises:
          BrokenError: If what answered before is gone; nothing has changed then.
          ServingError: If the model takes no updates, or has no room; or its rows are
            of another job, or newer than the job's.
          grpc.RpcError: If there is no answer.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        request.model_spec.signature_name = SIGNATURE
        request.output_filter.extend(_OUTPUTS)
        if self.version:
            request.model_spec.version.value = self.version
        for key, value in (
            ("table", tf.make_tensor_proto(rows.table)),
            ("ids", tf.make_tensor_proto(rows.ids, tf.int64)),
            ("rows", tf.make_tensor_proto(rows.weights, tf.float32)),
            ("step", tf.make_tensor_proto(step, tf.int64)),
            ("token", tf.make_tensor_proto(self._token, tf.int64)),
            ("lineage", tf.make_tensor_proto(str(self._lineage))),
            ("newest", tf.make_tensor_proto(self._newest, tf.int64)),
        ):
            request.inputs[key].CopyFrom(value)
        try:
            response = self._stub.Predict(request, timeout=self._timeout_secs)
        except grpc.RpcError as error:
            raise self._explained(error) from error
        self.answered_at = time.monotonic()
        self.version = response.model_spec.version.value
        answer = {
            key: int(tf.make_ndarray(value)) for key, value in response.outputs.items()
        }
        self._token = answer["token"]
        return Updated(answer["inserted"], answer["step"])

    def _explained(self, error: grpc.RpcError) -> Exception:
        text = error.details() or ""
        if self.version and error.code() is grpc.StatusCode.NOT_FOUND:
            return BrokenError(f"version {self.version} is gone")
        if "was loaded anew" in text:
            return BrokenError("it was restarted")
        if SIGNATURE in text and f"{SIGNATURE}:" not in text:
            return errors.ServingError(
                f"The model at {self.address} takes no updates: it has no signature "
                f"`{SIGNATURE}`. Set `export.spare_rows` and export it again."
            )
        if SIGNATURE not in text and "lineage" in text and "newest" in text:
            return errors.ServingError(
                f"The model at {self.address} was exported by a version of monolith_tf "
                "that gave it no lineage, so nobody can say whose rows it has. Export "
                f"it again: `monolith-tf export CONFIG`. It says: {text}"
            )
        if "another lineage" in text:
            return errors.ServingError(
                f"{self.address} serves another job's model, or one that trained on "
                f"after this job went back. This job is {self._lineage}. Publish that "
                "job's rows, or export this one: `monolith-tf export CONFIG`. "
                f"It says: {text}"
            )
        if "ahead of where" in text:
            return errors.ServingError(
                f"{self.address} has newer rows than the step from which this job "
                "goes on. Export a new version: `monolith-tf export CONFIG`. "
                f"It says: {text}"
            )
        if "of a later checkpoint" in text:
            return errors.ServingError(
                f"{self.address} has rows of a later checkpoint of this job: another "
                "publisher is ahead. Publish the newest checkpoint. "
                f"It says: {text}"
            )
        if "unknown table" in text and updates.EXACT in text:
            return errors.ServingError(
                f"The model at {self.address} was exported before a table of it had "
                "`large_integers: exact`. Export it again: `monolith-tf export "
                f"CONFIG`. It says: {text}"
            )
        if updates.BEYOND in text:
            return errors.ServingError(
                f"The model at {self.address} cannot hold a row that was sent. If the "
                "table's `compressor` or `int8_range` was changed since it was "
                "exported, export it again: `monolith-tf export CONFIG`; else train on "
                f"and publish the next checkpoint. It says: {text}"
            )
        if "capacity is spent" in text:
            return errors.ServingError(
                f"{self.address} has no room for more new ids; a full version is due: "
                "`monolith-tf export CONFIG`. More of `export.spare_rows` lasts longer."
            )
        return error
