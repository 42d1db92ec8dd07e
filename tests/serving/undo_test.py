"""Updates that break off are put back; served ids are compared with the job's."""

import grpc
import numpy as np
import pytest

from monolith_tf.serving import changed_rows
from monolith_tf.serving import errors
from monolith_tf.serving import publishing
from monolith_tf.serving import undo_log
from monolith_tf.testing import publishing as support


def _server(step):
    server = support.UpdateServer(step=step)
    server.signatures = support.GUARDED
    return server


def _served(server):
    """Id -> table and row, without rows of zeros."""
    return {
        id_: (table, row.tolist())
        for id_, (table, row) in server.rows.items()
        if row.any()
    }


def _trained(job, values):
    return {
        id_: (table, row.tolist()) for id_, (table, row) in job.rows(values).items()
    }


def test_an_update_that_broke_off_is_put_back_before_the_next(job):
    job.train([1, 2], [2])
    server = _server(step=1)
    with (
        support.listening(server) as address,
        publishing.Publisher(job.folder, [address], patience_secs=0) as publisher,
    ):
        publisher.publish()
        before = _served(server)
        job.train([2, 4])
        server.requests.clear()

        def fail(number):
            # It asks, then reads and replaces the rows of one table after another.
            if number == 5:
                raise grpc.RpcError(grpc.StatusCode.UNAVAILABLE, "Socket closed")

        server.before = fail
        (outcome,) = publisher.publish().values()
        assert isinstance(outcome, errors.ServingError)
        assert _served(server) != before
        server.before = lambda number: None
        (outcome,) = publisher.publish().values()
        assert (outcome.from_step, outcome.to_step) == (2, 3)
        assert _served(server) == _trained(job, [2, 4])
        (undone,) = publisher.roll_back().values()
        assert (undone.from_step, undone.to_step) == (3, 2)
        assert (_served(server), server.step) == (before, 2)
        assert undo_log.hold_path(job.folder).exists()
        publisher.publish()
        assert not undo_log.hold_path(job.folder).exists()
        assert _served(server) == _trained(job, [2, 4])


def test_a_server_that_was_restarted_is_not_rolled_back(job):
    job.train([1], [2])
    server = _server(step=1)
    with (
        support.listening(server) as address,
        publishing.Publisher(job.folder, [address]) as publisher,
    ):
        publisher.publish()
        server.restart()
        (outcome,) = publisher.roll_back().values()
    assert "was restarted, or updated by another publisher" in str(outcome)
    assert server.step == 1


def test_ids_that_only_the_server_has_are_removed(job, caplog):
    job.train([1, 2], [2])
    server = _server(step=1)
    (unknown,) = support.feature_ids(support.TABLES[1], [77]).tolist()
    server.rows[unknown] = ("b", np.ones(3, np.float32))
    with support.listening(server) as address:
        done = publishing.publish(job.folder, address)
    assert done.removed == 1
    assert not server.rows[unknown][1].any()
    assert "no longer exists" not in caplog.text


def test_a_cut_record_was_never_replaced(tmp_path):
    path = tmp_path / "a.undo"
    rows = _rows([1, 2])
    log = undo_log.UndoLog(path, version=3, token=4, step=5, nothing=_rows([]))
    log.add(rows)
    log.add_dense(np.arange(4, dtype=np.float32))
    log.close()
    whole = path.read_bytes()
    found = undo_log.read(path)
    assert (found.version, found.token, found.step, found.after) == (3, 4, 5, None)
    np.testing.assert_array_equal(found.rows[0].ids, rows.ids)
    np.testing.assert_array_equal(found.dense, np.arange(4))
    path.write_bytes(whole[:-3])
    found = undo_log.read(path)
    assert (len(found.rows), found.dense) == (1, None)
    path.write_bytes(whole[:10])
    assert undo_log.read(path) is None


def test_parts_of_other_processes_belong_to_one_update(tmp_path):
    path = tmp_path / "a.undo"

    def begin():
        return undo_log.UndoLog(path, version=3, token=4, step=5, nothing=_rows([]))

    log = begin()
    log.add(_rows([1]))
    for number in range(2):
        part = undo_log.UndoPart(**log.part(number))
        part.add(_rows([10 * number, 1]))
        part.add(_rows([10 * number + 1]))
    log.close()
    # What was replaced first is put back last.
    found = [rows.ids.tolist() for rows in undo_log.read(path).rows]
    assert found == [[1], [11], [10, 1], [1], [0, 1]]
    old = (tmp_path / "a.undo.0").read_bytes()
    log = begin()
    assert [each.name for each in tmp_path.iterdir()] == ["a.undo"]
    (tmp_path / "a.undo.0").write_bytes(old)
    assert undo_log.read(path).rows == ()
    with pytest.raises(
        FileNotFoundError, match=r"a\.undo, which the chief wrote there"
    ):
        undo_log.UndoPart(str(path), 1, "other")
    log.close()
    undo_log.remove(path)
    assert not list(tmp_path.iterdir())


def _rows(ids):
    ids = np.array(ids, np.int64)
    return changed_rows.Rows("a", ids, np.ones([len(ids), 2], np.float32))
