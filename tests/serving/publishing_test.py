"""Publishing to a gRPC server on loopback that keeps rows in a dictionary."""

import contextlib
from concurrent import futures

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import publishing
from monolith_tf.serving import update_client
from monolith_tf.training import checkpoint as checkpoint_lib

_TABLES = (
    TableSpec(name="a", slot=1, dim=2, expire_after_steps=8),
    TableSpec(name="b", slot=2, dim=3),
    TableSpec(name="c", slot=3, dim=3),
)


class _Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`update_embeddings` over a dictionary, with faults on demand."""

    def __init__(self, step, version=1):
        self.export_step = self.step = step
        self.version = version
        self.rows = {}
        self.requests = []
        self.before = lambda number: None

    def restart(self, version=None):
        """Forgets all but the export."""
        self.rows, self.step = {}, self.export_step
        self.version = version or self.version

    def Predict(self, request, context):
        self.requests.append(request)
        try:
            self.before(len(self.requests))
        except grpc.RpcError as error:
            context.abort(*error.args)
        spec = request.model_spec
        if spec.name != "default" or spec.version.value not in (0, self.version):
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        assert spec.signature_name == "update_embeddings"
        given = {name: tf.make_ndarray(v) for name, v in request.inputs.items()}
        before = len(self.rows)
        for id_, row in zip(given["ids"].tolist(), given["rows"], strict=True):
            if id_ in self.rows or row.any():
                self.rows[id_] = (given["table"].item().decode(), row)
        self.step = max(self.step, int(given["step"]))
        response = predict_pb2.PredictResponse()
        response.model_spec.version.value = self.version
        outputs = {"inserted": len(self.rows) - before, "step": self.step}
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value, tf.int64))
        return response


@contextlib.contextmanager
def _listening(servicer, port=0):
    server = grpc.server(
        futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)]
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        servicer, server
    )
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def _ids(table, values):
    return np.asarray(values, np.int64) + (table.slot << 48)


class _Job:
    """A store that is trained and saved as a job does."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.store = EmbeddingStore(
            _TABLES,
            [ColumnSpec(feature=t.name, table=t.name) for t in _TABLES],
            capacity=256,
            **({"track_updates": True} | options),
        )
        self.step = 0
        self._root = tf.Module()
        self._root.step = tf.Variable(0)

    def train(self, *batches):
        """Takes a step for each batch of values, which all tables get."""
        for values in batches:
            ids = {t.name: tf.constant(_ids(t, values)) for t in _TABLES}
            pulled = self.store.lookup(ids, training=True, step=self.step)
            gradients = {name: tf.ones_like(r) for name, r in pulled.rows.items()}
            self.store.apply_gradients(pulled, gradients, self.step)
            self.step += 1
            self.store.maintain(self.step)
        checkpoints = checkpoint_lib.CheckpointDir(self.folder / "checkpoints")
        checkpoints.save(self._root, self.store, step=self.step, state={})

    def rows(self, values):
        """Id -> table and row, of those ids that have one."""
        found = {}
        for table in _TABLES:
            ids = _ids(table, values)
            pulled = self.store.lookup({table.name: tf.constant(ids)}, training=False)
            rows = self.store.combine(pulled)[table.name]["vec"].numpy()
            for id_, row in zip(ids.tolist(), rows, strict=True):
                if row.any():
                    found[id_] = (table.name, row)
        return found


@pytest.fixture
def job(tmp_path):
    return _Job(tmp_path)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(publishing, "_FIRST_WAIT_SECS", 0.05)


def _same(rows, others):
    assert set(rows) == set(others)
    for id_, (table, row) in rows.items():
        assert others[id_][0] == table
        np.testing.assert_array_equal(others[id_][1], row)


def test_a_server_gets_what_was_touched_since_its_step(job):
    job.train([1, 2, 3], [2])
    job.train([2, 4])
    server = _Server(step=1)
    with _listening(server) as address:
        done = publishing.publish(job.folder, address)
        assert done == publishing.Published(
            version=1, from_step=1, to_step=3, updated=6, removed=0, inserted=6
        )
        _same(server.rows, job.rows([2, 4]))
        assert server.step == 3
        # Nothing is left to send.
        done = publishing.publish(job.folder, address)
        assert done == publishing.Published(1, 3, 3, 0, 0, 0)
        job.train([2, 5])
        done = publishing.publish(job.folder, address)
        assert done == publishing.Published(1, 3, 4, 6, 0, 3)
        _same(server.rows, job.rows([2, 4, 5]))


def test_a_server_that_was_restarted_catches_up(job):
    job.train([1], [2])
    server = _Server(step=0)
    with _listening(server) as address:
        publishing.publish(job.folder, address)
        server.restart()
        job.train([3])
        done = publishing.publish(job.folder, address)
    assert (done.from_step, done.to_step) == (0, 3)
    _same(server.rows, job.rows([1, 2, 3]))


def test_requests_are_small_and_the_step_comes_last(job):
    job.train(range(100))
    server = _Server(step=0)
    with _listening(server) as address:
        publishing.publish(job.folder, address, chunk_bytes=200)
    _same(server.rows, job.rows(range(100)))
    steps = [int(tf.make_ndarray(r.inputs["step"])) for r in server.requests]
    assert steps == [0] * (len(steps) - 1) + [1]
    # Rows of `a` have 16 bytes with their id, others 20: 12 and 10 a request.
    assert len(steps) == 1 + 9 + 10 + 10 + 1
    for request in server.requests:
        tensors = request.inputs["ids"], request.inputs["rows"]
        assert sum(len(tensor.tensor_content) for tensor in tensors) <= 200


def test_default_requests_are_below_what_grpc_takes():
    rows = changed_rows.Rows(
        "a" * 100, np.zeros(2_000_000, np.int64), np.ones((2_000_000, 1), "f4")
    )
    piece = next(rows.split(publishing.CHUNK_BYTES))
    request = predict_pb2.PredictRequest()
    for name, value in piece._asdict().items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    assert 3_800_000 < request.ByteSize() < 4_000_000


def test_a_wide_row_is_sent_alone():
    rows = changed_rows.Rows("a", np.arange(3), np.ones((3, 100), "f4"))
    assert [piece.ids.tolist() for piece in rows.split(10)] == [[0], [1], [2]]


def test_removed_ids_are_taken_away(job):
    job.train([1, 2])
    server = _Server(step=0)
    with _listening(server) as address:
        publishing.publish(job.folder, address)
        job.train(*[[1]] * 9)  # Ids of table `a` live for 8 steps.
        done = publishing.publish(job.folder, address)
    assert (done.updated, done.removed) == (3, 1)
    gone = _ids(_TABLES[0], [2]).item()
    assert not server.rows[gone][1].any()
    del server.rows[gone]
    _same(server.rows, job.rows([1, 2]))


def test_removals_that_are_not_known_are_told(job, caplog):
    job.train([1, 2])
    with _listening(_Server(step=0)) as address:
        publishing.publish(job.folder, address)
    assert (
        "There is no checkpoint of step 0 any more: ids that were removed since then "
        "are served until the next full version." in caplog.text
    )


def test_a_server_that_is_away_for_a_while_gets_all(job):
    job.train(range(20))
    server = _Server(step=0)

    def restart(number):
        if number == 4:
            server.restart()
            raise grpc.RpcError(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    server.before = restart
    with _listening(server) as address:
        done = publishing.publish(job.folder, address, chunk_bytes=100)
    assert done.updated == 60
    _same(server.rows, job.rows(range(20)))


def test_a_new_version_gets_all_and_none_of_the_old_ones_step(job):
    job.train(range(20))
    server = _Server(step=0)

    def exchange(number):
        if number == len(server.requests) == 12:
            server.restart(version=2)

    server.before = exchange
    with _listening(server) as address:
        done = publishing.publish(job.folder, address, chunk_bytes=100)
    assert (done.version, done.updated, server.step) == (2, 60, 1)
    _same(server.rows, job.rows(range(20)))


def test_a_connection_lost_between_requests_is_noticed():
    rows = changed_rows.Rows("a", np.zeros([0], np.int64), np.zeros([0, 2], "f4"))
    with contextlib.ExitStack() as stack:
        with _listening(_Server(step=5)) as address:
            client = stack.enter_context(update_client.UpdateClient(address, "default"))
            assert client.update(rows) == update_client.Updated(0, 5)
            client.check_unbroken()
        port = int(address.rpartition(":")[2])
        with _listening(_Server(step=5), port):
            assert _until_answered(client, rows).step == 5
            with pytest.raises(update_client.BrokenError, match="connection was lost"):
                client.check_unbroken()


def _until_answered(client, rows):
    for _ in range(200):
        with contextlib.suppress(grpc.RpcError):
            return client.update(rows)
    raise AssertionError("no answer")


def _refusing(code, text):
    server = _Server(step=0)

    def refuse(number):
        if number > 1 or code is not grpc.StatusCode.INVALID_ARGUMENT:
            raise grpc.RpcError(code, text)

    server.before = refuse
    return server


@pytest.mark.parametrize(
    ("code", "text", "told"),
    [
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "assertion failed: [update_embeddings: capacity is spent: ...",
            r"{address} has no room for more new ids; a full version is due: "
            r"`monolith-tf export CONFIG`\. More of `export\.spare_rows` lasts ",
        ),
        (
            grpc.StatusCode.INVALID_ARGUMENT,
            "update_embeddings: unknown table",
            r"{address} refuses an update: update_embeddings: unknown table",
        ),
        (
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "update_embeddings" not found.',
            r"The model at {address} takes no updates: it has no signature "
            r"`update_embeddings`\. Set `export\.spare_rows` and export it again\.",
        ),
        (
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(default)",
            r"{address} refuses an update: Servable not found for request",
        ),
        (
            grpc.StatusCode.UNAVAILABLE,
            "failed to connect",
            r"{address} could not be brought up to date\. The last of several tries in "
            r"0\.35 s ended with: UNAVAILABLE: failed to connect",
        ),
    ],
)
def test_what_a_server_refuses_is_told(job, code, text, told):
    job.train([1])
    with (
        _listening(_refusing(code, text)) as address,
        pytest.raises(errors.ServingError, match="^" + told.format(address=address)),
    ):
        publishing.publish(job.folder, address, patience_secs=0.5)


def test_a_server_that_is_ahead_is_told(job, caplog):
    job.train([1])
    with _listening(_Server(step=7)) as address:
        done = publishing.publish(job.folder, address)
        assert done == publishing.Published(1, 7, 7, 0, 0, 0)
        told = f"{address} stands at step 7, ahead of the newest checkpoint, of step 1."
        assert told in caplog.text


def test_a_job_that_does_not_track_updates_is_told(tmp_path):
    job = _Job(tmp_path, track_updates=False)
    job.train([1])
    with (
        _listening(_Server(step=0)) as address,
        pytest.raises(
            errors.ServingError,
            match=r"ckpt-00000001/embedding does not tell when its rows were updated\. "
            r"Set `export\.spare_rows`, train on, and publish the next checkpoint\.",
        ),
    ):
        publishing.publish(tmp_path, address)


def test_a_job_without_checkpoints_is_told(tmp_path):
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=rf"^There is no checkpoint in {tmp_path}/checkpoints\. Train first: ",
    ):
        publishing.publish(tmp_path, "127.0.0.1:1")
