"""A job whose rows change, and a fake server that stores published rows."""

import contextlib
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.export import refusals
from monolith_tf.export import updates
from monolith_tf.lineage import Branch
from monolith_tf.lineage import Lineage
from monolith_tf.serving import update_client
from monolith_tf.training import checkpoint_dir

TABLES = (
    TableSpec(name="a", slot=1, dim=2, expire_after_steps=8),
    TableSpec(name="b", slot=2, dim=3),
    TableSpec(name="c", slot=3, dim=3),
)

LINEAGE = Lineage((Branch("a" * 32),))
"""Lineage of the job."""
STATE = {"lineage": LINEAGE.to_json()}

Found = dict[int, tuple[str, np.ndarray]]
"""Feature id -> table and row."""


GUARDED = frozenset(
    {
        updates.KEY,
        update_client.READ_ROWS,
        update_client.LIST_ROWS,
        update_client.ROLL_BACK,
    }
)
"""The signatures with which the fake can be guarded."""


class UpdateServer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """A fake of `update_embeddings` that stores rows in a dictionary and can fail.

    Attributes:
      rows: The rows received.
      step: The step of the rows.
      token: Of this start.
      signatures: The keys of the signatures that it says it has.
      predict: Rows -> its predictions for any request.
      requests: All requests so far.
      before: Called before each response with the number of requests so far; may raise
        `grpc.RpcError(code, text)`.
    """

    def __init__(self, step: int, version: int = 1) -> None:
        self.export_step = self.step = step
        self.version = version
        self.rows: Found = {}
        self.requests: list[predict_pb2.PredictRequest] = []
        self.before: Callable[[int], None] = lambda number: None
        self.token = 1
        self.signatures = {updates.KEY}
        self.predict: Callable[[Found], dict[str, np.ndarray]] = lambda rows: {}

    def restart(self, version: int | None = None) -> None:
        """Resets the state to that of the export."""
        self.rows, self.step = {}, self.export_step
        self.version = version or self.version
        self.token += 1

    def GetModelMetadata(
        self,
        request: get_model_metadata_pb2.GetModelMetadataRequest,
        context: grpc.ServicerContext,
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Answers with the keys of the signatures."""
        del request, context
        found = get_model_metadata_pb2.SignatureDefMap()
        for key in self.signatures:
            found.signature_def[key].method_name = "predict"
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.metadata["signature_def"].Pack(found)
        return response

    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Answers a request."""
        self.requests.append(request)
        try:
            self.before(len(self.requests))
        except grpc.RpcError as error:
            context.abort(*error.args)
        spec = request.model_spec
        if spec.name != "default" or spec.version.value not in (0, self.version):
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        given = {name: tf.make_ndarray(v) for name, v in request.inputs.items()}
        if given.get("token", 0) not in (0, self.token):
            text = f"{updates.KEY}: the model was loaded again {refusals.RELOADED}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        answers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            updates.KEY: self._update,
            update_client.READ_ROWS: self._read,
            update_client.LIST_ROWS: self._list,
            update_client.ROLL_BACK: self._roll_back,
            "serving_default": lambda given: self.predict(self.rows),
        }
        answer = answers[spec.signature_name](given)
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = self.version
        for name, value in answer.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def _update(self, given: Mapping[str, Any]) -> dict[str, Any]:
        before = len(self.rows)
        for id_, row in zip(given["ids"].tolist(), given["rows"], strict=True):
            if id_ in self.rows or row.any():
                self.rows[id_] = (given["table"].item().decode(), row)
        self.step = max(self.step, int(given["step"]))
        inserted = len(self.rows) - before
        return {"inserted": np.int64(inserted), **self._state()}

    def _read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        table = given["table"].item().decode()
        (dim,) = (t.row_dim for t in TABLES if t.name == table)
        nothing = table, np.zeros([dim], np.float32)
        rows = [self.rows.get(id_, nothing)[1] for id_ in given["ids"].tolist()]
        return {"rows": np.array(rows, np.float32), **self._state()}

    def _list(self, given: Mapping[str, Any]) -> dict[str, Any]:
        table = given["table"].item().decode()
        ids = [
            id_
            for id_, (name, row) in self.rows.items()
            if name == table and row.any() and id_ % given["parts"] == given["part"]
        ]
        return {"ids": np.array(ids, np.int64), **self._state()}

    def _roll_back(self, given: Mapping[str, Any]) -> dict[str, Any]:
        del given
        before, self.step = self.step, 0
        self.token += 1
        return {"before": np.int64(before), **self._state()}

    def _state(self) -> dict[str, Any]:
        return {"step": np.int64(self.step), "token": np.int64(self.token)}


@contextlib.contextmanager
def listening(
    servicer: UpdateServer, credentials: grpc.ServerCredentials | None = None
) -> Iterator[str]:
    """Runs a server, with TLS if it has credentials; yields its address."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    place = "127.0.0.1:0"
    if credentials is None:
        port = server.add_insecure_port(place)
    else:
        port = server.add_secure_port(place, credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def feature_ids(table: TableSpec, values: Iterable[int]) -> np.ndarray:
    """Returns ids of a table."""
    return np.asarray(values, np.int64) + ((table.slot or 0) << 48)


class RowJob:
    """Trains and saves a store as a job does.

    Attributes:
      folder: Its model_dir.
      step: The global step.

    Args:
      folder: Its model_dir.
      tables: Its tables.
      **options: Options of the store.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        tables: Sequence[TableSpec] = TABLES,
        **options: Any,
    ) -> None:
        self.folder = folder
        self._tables = tables
        self.step = 0
        self._store = EmbeddingStore(
            tables,
            [ColumnSpec(feature=t.name, table=t.name) for t in tables],
            capacity=256,
            **({"track_updates": True} | options),
        )
        self._root = tf.Module()
        self._root.step = tf.Variable(0)

    def train(self, *batches: Sequence[int]) -> None:
        """Trains all tables for one step per batch of values, then saves."""
        for values in batches:
            ids = {t.name: tf.constant(feature_ids(t, values)) for t in self._tables}
            pulled = self._store.lookup(ids, training=True, step=self.step)
            gradients = {name: tf.ones_like(r) for name, r in pulled.rows.items()}
            self._store.apply_gradients(pulled, gradients, self.step)
            self.step += 1
            self._store.maintain(self.step)
        checkpoints = checkpoint_dir.CheckpointDir(self.folder / "checkpoints")
        checkpoints.save(self._root, self._store, step=self.step, state=STATE)

    def rows(self, values: Iterable[int]) -> Found:
        """Returns the rows of values, for ids that have one."""
        found = {}
        for table in self._tables:
            ids = feature_ids(table, values)
            pulled = self._store.lookup({table.name: tf.constant(ids)}, training=False)
            rows = self._store.combine(pulled)[table.name]["vec"].numpy()
            for id_, row in zip(ids.tolist(), rows, strict=True):
                if row.any():
                    found[id_] = (table.name, row)
        return found
