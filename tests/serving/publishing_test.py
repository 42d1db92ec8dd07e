"""Publishing to a gRPC server on loopback that stores rows in a dictionary."""

import dataclasses

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from monolith_tf.embedding import initializer_spec
from monolith_tf.embedding.frozen import store as frozen
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.serving import changed_rows
from monolith_tf.serving import publishing
from monolith_tf.testing import publishing as support


def _same(rows, others):
    assert set(rows) == set(others)
    for id_, (table, row) in rows.items():
        assert others[id_][0] == table
        np.testing.assert_array_equal(others[id_][1], row)


def test_a_server_gets_what_was_touched_since_its_step(job):
    job.train([1, 2, 3], [2])
    job.train([2, 4])
    server = support.UpdateServer(step=1)
    with support.listening(server) as address:
        done = publishing.publish(job.folder, address)
        assert done == publishing.Published(
            version=1, from_step=1, to_step=3, updated=6, removed=0, inserted=6
        )
        _same(server.rows, job.rows([2, 4]))
        assert server.step == 3
        # There is nothing left to send.
        done = publishing.publish(job.folder, address)
        assert done == publishing.Published(1, 3, 3, 0, 0, 0)
        job.train([2, 5])
        done = publishing.publish(job.folder, address)
        assert done == publishing.Published(1, 3, 4, 6, 0, 3)
        _same(server.rows, job.rows([2, 4, 5]))


def test_rows_are_clipped_as_in_an_export(tmp_path, caplog):
    constant = initializer_spec.ConstantSpec
    tables = [
        TableSpec(name="half", slot=1, dim=2, compressor="fp16"),
        TableSpec(name="byte", slot=2, dim=2, compressor="int8", int8_range=0.5),
        TableSpec(name="near", slot=3, dim=2, compressor="int8", int8_range=4.0),
    ]
    starts = {"half": 1e6, "byte": -3.0, "near": 2.0}
    tables = [
        dataclasses.replace(t, initializer=constant(value=starts[t.name]))
        for t in tables
    ]
    job = support.RowJob(tmp_path, tables)
    job.train([1, 2])
    server = support.UpdateServer(step=0)
    with support.listening(server) as address:
        done = publishing.publish(tmp_path, address)
    assert (done.updated, done.clipped) == (6, 4)
    assert "4 of 6 rows have numbers out of range for their table's" in caplog.text
    (checkpoint,) = (tmp_path / "checkpoints").glob("ckpt-*")
    columns = [ColumnSpec(feature=t.name, table=t.name) for t in tables]
    store = frozen.frozen_store(tables, columns, str(checkpoint / "embedding"))
    for table in tables:
        ids = support.feature_ids(table, [1, 2])
        found = store.lookup({table.name: tf.constant(ids)})
        held = store.combine(found)[table.name]["vec"].numpy()
        sent = np.stack([server.rows[id_][1] for id_ in ids.tolist()])
        np.testing.assert_allclose(sent, held, atol=4 / 127)
    for name, largest in (("half", 65504), ("byte", -0.5)):
        (table,) = (t for t in tables if t.name == name)
        for id_ in support.feature_ids(table, [1, 2]).tolist():
            np.testing.assert_array_equal(server.rows[id_][1], [largest] * 2)


def test_a_server_that_was_restarted_catches_up(job):
    job.train([1], [2])
    server = support.UpdateServer(step=0)
    with support.listening(server) as address:
        publishing.publish(job.folder, address)
        server.restart()
        job.train([3])
        done = publishing.publish(job.folder, address)
    assert (done.from_step, done.to_step) == (0, 3)
    _same(server.rows, job.rows([1, 2, 3]))


def test_requests_are_small_and_the_step_comes_last(job):
    job.train(range(100))
    server = support.UpdateServer(step=0)
    with support.listening(server) as address:
        publishing.publish(job.folder, address, chunk_bytes=200)
    _same(server.rows, job.rows(range(100)))
    steps = [int(tf.make_ndarray(r.inputs["step"])) for r in server.requests]
    assert steps == [0] * (len(steps) - 1) + [1]
    # Rows of `a` have 16 bytes with their id, others 20: 12 and 10 per request.
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
    server = support.UpdateServer(step=0)
    with support.listening(server) as address:
        publishing.publish(job.folder, address)
        job.train(*[[1]] * 9)  # Ids of table `a` live for 8 steps.
        done = publishing.publish(job.folder, address)
    assert (done.updated, done.removed) == (3, 1)
    gone = support.feature_ids(support.TABLES[0], [2]).item()
    assert not server.rows[gone][1].any()
    del server.rows[gone]
    _same(server.rows, job.rows([1, 2]))


def test_removals_that_are_not_known_are_reported(job, caplog):
    job.train([1, 2])
    with support.listening(support.UpdateServer(step=0)) as address:
        publishing.publish(job.folder, address)
    assert (
        "The checkpoint of step 0 no longer exists: ids that were removed since then "
        "are served until the next full version." in caplog.text
    )


def test_a_server_that_is_away_for_a_while_gets_all(job):
    job.train(range(20))
    server = support.UpdateServer(step=0)

    def restart(number):
        if number == 4:
            server.restart()
            raise grpc.RpcError(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    server.before = restart
    with support.listening(server) as address:
        done = publishing.publish(job.folder, address, chunk_bytes=100)
    assert done.updated == 60
    _same(server.rows, job.rows(range(20)))


def test_a_new_version_gets_all_and_none_of_the_old_ones_step(job):
    job.train(range(20))
    server = support.UpdateServer(step=0)

    def exchange(number):
        if number == len(server.requests) == 12:
            server.restart(version=2)

    server.before = exchange
    with support.listening(server) as address:
        done = publishing.publish(job.folder, address, chunk_bytes=100)
    assert (done.version, done.updated, server.step) == (2, 60, 1)
    _same(server.rows, job.rows(range(20)))


def test_a_restart_that_nobody_saw_is_refused_by_the_server(job):
    job.train(range(20))
    server = support.UpdateServer(step=0)
    with support.listening(server) as address:
        publishing.publish(job.folder, address, chunk_bytes=100)
        last = len(server.requests)
        server.restart()
        server.requests.clear()

        def restart(number):
            # Before the request that sets the step, and without a lost connection.
            if number == last:
                server.restart()

        server.before = restart
        done = publishing.publish(job.folder, address, chunk_bytes=100)
    assert done.updated == 60
    assert len(server.requests) == 2 * last
    assert server.step == 1
    _same(server.rows, job.rows(range(20)))


def test_rows_of_a_checkpoint_and_of_later_changes_are_read_as_one(tmp_path):
    job = support.RowJob(tmp_path)
    store = job._store
    job.train([1, 2, 3])
    layers = [str(tmp_path / name) for name in ("base", "one", "two")]
    store.save(layers[0], step=1)
    job.train([2, 4], *[[1]] * 9)  # Ids of table `a` live for 8 steps.
    store.save(layers[1], step=11, since_step=1)
    job.train([5])
    store.save(layers[2], step=12, since_step=11)
    saved = changed_rows.SavedRows(*layers)
    found = {
        id_: (rows.table, row)
        for rows in saved.updated(0)
        for id_, row in zip(rows.ids.tolist(), rows.weights, strict=True)
    }
    _same(found, job.rows(range(10)))
    removed = {
        (rows.table, id_)
        for rows in saved.removed(changed_rows.SavedRows(*layers[:1]))
        for id_ in rows.ids.tolist()
    }
    lost = support.feature_ids(support.TABLES[0], [2, 3]).tolist()
    assert removed == {("a", id_) for id_ in lost}
