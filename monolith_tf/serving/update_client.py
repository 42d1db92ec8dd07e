"""A client of a model server's `update_embeddings` signature."""

import time
from typing import NamedTuple

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf import lineage as lineage_lib
from monolith_tf.export import refusals
from monolith_tf.export import updates
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import tls as tls_lib

# Not all outputs: a server with batching would try to merge such requests with others,
# and refuse them, since their inputs are not rows.
_OUTPUTS = ("inserted", "step", "token")


class BrokenError(RuntimeError):
    """The updates sent so far may be lost; start over."""


class Updated(NamedTuple):
    """A server's answer.

    Attributes:
      inserted: Ids that took a spare row.
      step: The server's step.
    """

    inserted: int
    step: int


class UpdateClient:
    """Sends row updates to one server, which refuses them if it has lost earlier ones.

    A server that restarts, or switches to another version, has only the rows of its
    export. So all requests but the first name the version that answered the first one,
    and carry its token, which is unique to one start of a server.

    Attributes:
      address: The server's.
      version: The version that answers; 0 before the first answer.
      newest: The newest step of the rows that are sent; it may only rise.
      answered_at: The time of the last answer, or of this object's creation, by
        `time.monotonic`.

    Args:
      address: `host:port`.
      name: The model's name on the server.
      lineage: The lineage of the rows' job.
      newest: See above.
      tls: Files for TLS; None connects without TLS.
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
        self.newest = newest
        self.answered_at = time.monotonic()
        self._timeout_secs = timeout_secs
        self._name = name
        self._lineage = lineage
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
        """Closes the connection; a pending request fails."""
        self._channel.close()

    def update(self, rows: changed_rows.Rows, *, step: int = 0) -> Updated:
        """Sends rows of one table.

        Args:
          rows: The rows, possibly none.
          step: The server's step after this request; 0 leaves it unchanged.

        Raises:
          BrokenError: If the server restarted or changed versions; the request changed
            nothing.
          ServingError: If the model takes no updates, or has no room; or its rows are
            of another job, or newer than the job's.
          grpc.RpcError: If there is no answer.
        """
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        request.model_spec.signature_name = updates.KEY
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
            ("newest", tf.make_tensor_proto(self.newest, tf.int64)),
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
        if refusals.RELOADED in text:
            return BrokenError("it was restarted")
        if updates.KEY in text and f"{updates.KEY}:" not in text:
            return errors.ServingError(
                f"The model at {self.address} takes no updates: it has no signature "
                f"`{updates.KEY}`. Set `export.spare_rows` and export it again."
            )
        if updates.KEY not in text and "lineage" in text and "newest" in text:
            return errors.ServingError(
                f"The model at {self.address} was exported without a lineage by an "
                "older version of monolith_tf, so the job of its rows is unknown. "
                f"Export it again: `monolith-tf export CONFIG`. It says: {text}"
            )
        if refusals.OTHER_LINEAGE in text:
            return errors.ServingError(
                f"{self.address} serves the model of another job, or of one that "
                f"trained on after this job went back. This job is {self._lineage}. "
                "Publish that job's rows, or export this one: `monolith-tf export "
                f"CONFIG`. It says: {text}"
            )
        if refusals.WENT_BACK in text:
            return errors.ServingError(
                f"{self.address} has newer rows than the step from which this job "
                "continues. Export a new version: `monolith-tf export CONFIG`. "
                f"It says: {text}"
            )
        if refusals.LATER_CHECKPOINT in text:
            return errors.ServingError(
                f"{self.address} has rows of a later checkpoint of this job: another "
                "publisher is ahead. Publish the newest checkpoint. "
                f"It says: {text}"
            )
        if refusals.UNKNOWN_TABLE in text and updates.EXACT in text:
            return errors.ServingError(
                f"The model at {self.address} was exported before one of its tables "
                "had `large_integers: exact`. Export it again: `monolith-tf export "
                f"CONFIG`. It says: {text}"
            )
        if refusals.BEYOND in text:
            return errors.ServingError(
                f"The model at {self.address} cannot hold a row that was sent. If the "
                "table's `compressor` or `int8_range` changed after the export, export "
                "it again: `monolith-tf export CONFIG`; otherwise train further and "
                f"publish the next checkpoint. It says: {text}"
            )
        if refusals.NO_ROOM in text:
            return errors.ServingError(
                f"{self.address} has no room for more new ids. Export a full version: "
                "`monolith-tf export CONFIG`. A larger `export.spare_rows` lasts "
                "longer."
            )
        return error
