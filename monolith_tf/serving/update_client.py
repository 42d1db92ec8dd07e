"""A client of the signatures by which a model server is updated."""

import json
import pathlib
import re
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf import flat_layout
from monolith_tf import lineage as lineage_lib
from monolith_tf.export import dense_updates
from monolith_tf.export import refusals
from monolith_tf.export import roll_back
from monolith_tf.export import row_reads
from monolith_tf.export import updates
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import tls as tls_lib
from monolith_tf.types import JsonDict
from monolith_tf.types import JsonMapping

# Not all outputs: a server with batching would try to merge such requests with others,
# and refuse them, since their inputs are not rows.
_OUTPUTS = ("inserted", "step", "token")


_BRANCH = re.compile(r"[\w.-]+@\d+")
READ_ROWS, LIST_ROWS = row_reads.READ_KEY, row_reads.LIST_KEY
UPDATE_DENSE, READ_DENSE = dense_updates.KEY, dense_updates.READ_KEY
ROLL_BACK = roll_back.KEY


class BrokenError(RuntimeError):
    """The updates sent so far may be lost; start over."""


class AheadError(errors.ServingError):
    """The server has values that the job does not come from; it may be set back.

    Attributes:
      branches: Ids of the branches that it serves; empty if they are of the job's past,
        and it is ahead of where the job went back.
    """

    def __init__(self, message: str, branches: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.branches = tuple(branches)


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
      is_closed: Whether it was closed.

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
        self.is_closed = False
        self._timeout_secs = timeout_secs
        self._tls = tls
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

    @property
    def token(self) -> int:
        """The server's token; 0 before the first answer."""
        return self._token

    def to_json(self) -> JsonDict:
        """Returns what another process needs to continue for this client."""
        tls = {} if self._tls is None else vars(self._tls)
        paths = {
            key: None if path is None else str(pathlib.Path(path).absolute())
            for key, path in tls.items()
            if key != "server_name"
        }
        return {
            "address": self.address,
            "name": self._name,
            "lineage": self._lineage.to_json(),
            "newest": self.newest,
            "tls": tls | paths,
            "timeout_secs": self._timeout_secs,
            "version": self.version,
            "token": self._token,
        }

    @classmethod
    def from_json(cls, content: JsonMapping) -> "UpdateClient":
        """Returns a client that continues for the one that `to_json` described.

        Raises:
          ServingError: If a file of TLS is missing here, or invalid.
        """
        client = cls(
            content["address"],
            content["name"],
            lineage_lib.from_json(content["lineage"]),
            content["newest"],
            tls=tls_lib.Tls(**content["tls"]) if content["tls"] else None,
            timeout_secs=content["timeout_secs"],
        )
        client.version, client._token = content["version"], content["token"]
        return client

    def close(self) -> None:
        """Closes the connection; a pending request fails."""
        self.is_closed = True
        self._channel.close()

    def update(self, rows: changed_rows.Rows, *, step: int = 0) -> Updated:
        """Sends rows of one table.

        Args:
          rows: The rows, possibly none.
          step: The server's step after this request; 0 leaves it unchanged.

        Raises:
          BrokenError: If the server restarted or changed versions; the request changed
            nothing.
          AheadError: If it has values that are not of the job's past.
          ServingError: If the model takes no updates, or has no room; or its rows are
            of another job, or newer than the job's.
          grpc.RpcError: If there is no answer.
        """
        answer = self._ask(
            updates.KEY,
            {
                "table": np.array(rows.table.encode(), object),
                "ids": rows.ids.astype(np.int64),
                "rows": rows.weights.astype(np.float32),
                **self._sender(step),
            },
            _OUTPUTS,
        )
        self._token = int(answer["token"])
        return Updated(int(answer["inserted"]), int(answer["step"]))

    def signatures(self) -> frozenset[str]:
        """Returns the keys of the model's signatures; none if it does not say.

        Raises:
          grpc.RpcError: If there is no answer.
        """
        request = get_model_metadata_pb2.GetModelMetadataRequest()
        request.model_spec.name = self._name
        if self.version:
            request.model_spec.version.value = self.version
        request.metadata_field.append("signature_def")
        try:
            answer = self._stub.GetModelMetadata(request, timeout=self._timeout_secs)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return frozenset()
            raise
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return frozenset(found.signature_def)

    def read(self, table: str, ids: np.ndarray) -> changed_rows.Rows:
        """Returns rows as they are served, `[n, dim]`; zeros for ids without one."""
        inputs = {"table": np.array(table.encode(), object), "ids": ids}
        answer = self._ask(READ_ROWS, inputs, ("rows", "token"))
        return changed_rows.Rows(table, ids, answer["rows"])

    def list(self, table: str, part: int, parts: int) -> np.ndarray:
        """Returns the ids of a part of a table that have a row, `[n]`, int64."""
        inputs = {
            "table": np.array(table.encode(), object),
            "part": np.array(part, np.int64),
            "parts": np.array(parts, np.int64),
        }
        return self._ask(LIST_ROWS, inputs, ("ids", "token"))["ids"]

    def roll_back(self, newest: int) -> None:
        """Lets an older state be sent, whose newest step is `newest`.

        Until its step is set again, the server says that it is at step 0.

        Raises:
          ServingError: If the served values are of another job, or of a newer branch.
        """
        inputs = self._sender(0) | {
            "newest": np.array(newest, np.int64),
            "confirm": np.array(True),
        }
        del inputs["step"]
        answer = self._ask(ROLL_BACK, inputs, ("before", "token"))
        self._token, self.newest = int(answer["token"]), newest

    def dense_layout(self) -> flat_layout.FlatLayout:
        """Returns where the dense weights are in their vector."""
        inputs = {"offset": np.array(0, np.int64), "size": np.array(0, np.int64)}
        answer = self._ask(READ_DENSE, inputs, ("layout",))
        return flat_layout.FlatLayout.from_json(json.loads(answer["layout"].item()))

    def read_dense(self, chunk_bytes: int) -> np.ndarray:
        """Returns the dense weights in one vector, float32.

        Raises:
          BrokenError: If they change meanwhile.
        """
        pieces: list[np.ndarray] = []
        read, size, uploads = 0, 1, set()
        while read < size:
            inputs = {
                "offset": np.array(read, np.int64),
                "size": np.array(max(1, chunk_bytes // 4), np.int64),
            }
            outputs = ("values", "size", "upload", "token")
            answer = self._ask(READ_DENSE, inputs, outputs)
            pieces.append(answer["values"])
            read, size = read + len(pieces[-1]), int(answer["size"])
            uploads.add((int(answer["upload"]), int(answer["token"])))
            if len(uploads) > 1:
                raise BrokenError("its dense weights change")
        return np.concatenate(pieces)

    def send_dense(self, flat: np.ndarray, chunk_bytes: int) -> None:
        """Replaces the dense weights, at once.

        Args:
          flat: A vector as `read_dense` returns it.
          chunk_bytes: Bytes per request.
        """
        upload, size = 0, max(1, chunk_bytes // 4)
        for offset in range(0, len(flat), size):
            piece = flat[offset : offset + size]
            answer = self._ask(
                UPDATE_DENSE,
                {
                    "values": piece,
                    "offset": np.array(offset, np.int64),
                    "upload": np.array(upload, np.int64),
                    "is_last": np.array(offset + size >= len(flat)),
                    **self._sender(0),
                },
                ("upload", "token"),
            )
            upload, self._token = int(answer["upload"]), int(answer["token"])

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the model's predictions."""
        return self._ask("serving_default", inputs, ())

    def _sender(self, step: int) -> dict[str, np.ndarray]:
        return {
            "step": np.array(step, np.int64),
            "token": np.array(self._token, np.int64),
            "lineage": np.array(str(self._lineage).encode(), object),
            "newest": np.array(self.newest, np.int64),
        }

    def _ask(
        self, key: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Returns outputs of a signature; all of them if none is named."""
        request = predict_pb2.PredictRequest()
        request.model_spec.name = self._name
        request.model_spec.signature_name = key
        request.output_filter.extend(outputs)
        if self.version:
            request.model_spec.version.value = self.version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            response = self._stub.Predict(request, timeout=self._timeout_secs)
        except grpc.RpcError as error:
            raise self._explained(error) from error
        self.answered_at = time.monotonic()
        self.version = response.model_spec.version.value
        return {k: tf.make_ndarray(value) for k, value in response.outputs.items()}

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
            return AheadError(
                f"{self.address} serves the model of another job, or of one that "
                f"trained on after this job went back. This job is {self._lineage}. "
                "Publish that job's rows, or export this one: `monolith-tf export "
                f"CONFIG`. It says: {text}",
                [name.partition("@")[0] for name in _BRANCH.findall(text)],
            )
        if refusals.WENT_BACK in text:
            return AheadError(
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
            return errors.NoRoomError(
                f"{self.address} has no room for more new ids. Export a full version: "
                "`monolith-tf export CONFIG`. A larger `export.spare_rows` lasts "
                "longer."
            )
        return error
