"""Parameter servers send their rows to model servers; the chief sees none of them."""

import contextlib
import threading
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import trustme

from monolith_tf.embedding.saved import write
from monolith_tf.embedding.shard import shard_rows
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.serving import golden
from monolith_tf.serving import guard
from monolith_tf.serving import live_source
from monolith_tf.serving import publishing
from monolith_tf.serving import row_sender
from monolith_tf.serving import server_update
from monolith_tf.serving import tls
from monolith_tf.serving import undo_log
from monolith_tf.serving import update_client
from monolith_tf.testing import publishing as support
from monolith_tf.testing import server_processes

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.own_process,
    pytest.mark.timeout(280),
]


class _Server(support.UpdateServer):
    """A fake that refuses rows of an earlier step than others, as a real server does.

    Attributes:
      newest: The newest step of a request.
    """

    def __init__(self, step=0):
        super().__init__(step)
        self.signatures = support.GUARDED
        self.newest = 0

    def _update(self, given):
        if len(given["ids"]):
            assert given["newest"] >= self.newest
            self.newest = int(given["newest"])
        return super()._update(given)

    def _roll_back(self, given):
        self.newest = 0
        return super()._roll_back(given)

    def served(self):
        """Id -> row, without rows of zeros."""
        return {id_: r.tobytes() for id_, (_, r) in self.rows.items() if r.any()}


class _Job:
    """A store on parameter servers, and what publishes it."""

    def __init__(self, folder, placement):
        self.folder = folder
        self.store = EmbeddingStore(
            support.TABLES,
            [ColumnSpec(feature=t.name, table=t.name) for t in support.TABLES],
            capacity=256,
            placement=placement,
            track_updates=True,
        )
        self.step = 0
        self.live = live_source.LiveRows(folder, self.store, dict, support.LINEAGE)
        self.source = None

    def train(self, *batches):
        for values in batches:
            ids = {
                t.name: tf.constant(support.feature_ids(t, values))
                for t in support.TABLES
            }
            pulled = self.store.lookup(ids, training=True, step=self.step)
            gradients = {name: tf.ones_like(r) for name, r in pulled.rows.items()}
            self.store.apply_gradients(pulled, gradients, self.step)
            self.step += 1
            self.store.maintain(self.step)
        self.source = self.live.take(self.step, [self.step])

    def spoil(self, table, value):
        """Makes the row of a value not finite."""
        (id_,) = support.feature_ids(table, [value])
        for shard in (s for of_group in self.store._shards.values() for s in of_group):
            if shard.index.search(tf.constant([id_])).numpy()[0]:
                group = shard.group
                weights = np.full([1, group.dim], np.inf, np.float32)
                state = np.ones([1, group.state_dim], np.float32)
                stamps = {name: np.array([self.step]) for name in group.stamps}
                shard.load(Chunk(np.array([id_]), weights, state, stamps))

    def served(self):
        """Id -> row of a fresh export."""
        return {
            int(id_): row.tobytes()
            for chunk in self.store.rows()
            for id_, row in zip(chunk.ids, chunk.weights, strict=True)
        }

    def publisher(self, *addresses, **options):
        given = {"chunk_bytes": 200, "patience_secs": 0.0, **options}
        return publishing.Publisher(
            self.folder, addresses, source=lambda: self.source, **given
        )


@pytest.fixture(scope="module")
def servers():
    with server_processes.ServerProcesses(2) as found:
        yield found


@pytest.fixture
def job(servers, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "CHUNK_BYTES", 1 << 8)
    return _Job(tmp_path, servers.placement)


@contextlib.contextmanager
def _without_rows():
    """Makes all ways fail by which rows could reach this process or leave it."""
    failure = AssertionError("The chief sees rows.")
    with (
        mock.patch.object(shard_rows.ShardRows, "chunks", side_effect=failure),
        mock.patch.object(row_sender.RowSender, "update", side_effect=failure),
    ):
        yield


def _published(outcomes):
    for outcome in outcomes.values():
        if isinstance(outcome, Exception):
            raise outcome
    return list(outcomes.values())


def test_the_chief_sees_no_rows(job):
    one, two = _Server(), _Server()
    with (
        support.listening(one) as first,
        support.listening(two) as second,
        job.publisher(first, second) as publisher,
        _without_rows(),
    ):
        job.train(range(40), range(20, 60))
        sent = _published(publisher.publish())
        assert [(s.updated, s.inserted) for s in sent] == [(3 * 60, 3 * 60)] * 2
        assert len(one.served()) == 3 * 60
        # Only what changed is sent, and rows that expired are removed.
        job.train(*[[100 + i, 21] for i in range(12)])
        (sent, _) = _published(publisher.publish())
        assert (sent.from_step, sent.to_step) == (2, 14)
        assert sent.updated == sent.inserted + 3
        assert sent.removed == 59 + 5  # The new ones of steps 2 to 6, too.
    assert one.served() == two.served() == job.served()
    assert one.newest == 14


def test_a_server_that_was_restarted_gets_all_rows(job):
    one = _Server(step=1)
    with support.listening(one) as address, job.publisher(address) as publisher:
        job.train([1, 2, 3], [1, 2, 4])
        _published(publisher.publish())
        job.train([5])
        one.restart()
        (unknown,) = support.feature_ids(support.TABLES[1], [99]).tolist()
        one.rows = {unknown: ("b", np.ones(3, np.float32))}
        with _without_rows():
            one.step = 0
            (sent,) = _published(publisher.publish())
    assert (sent.updated, sent.removed) == (3 * 5, 1)
    assert one.served() == job.served()


def test_a_bad_row_is_refused_and_the_others_are_put_back(job):
    one = _Server()
    with (
        support.listening(one) as address,
        job.publisher(address) as publisher,
        _without_rows(),
    ):
        job.train(range(30), range(30))
        _published(publisher.publish())
        before, requests = one.served(), len(one.requests)
        job.train(range(0, 40, 2))
        job.spoil(support.TABLES[2], 30)
        (outcome,) = publisher.publish().values()
        assert isinstance(outcome, guard.RefusedError), outcome
        assert "of table `c` is not finite" in str(outcome)
        assert len(one.requests) > requests + 10
    assert (one.served(), one.step) == (before, 2)
    assert not list((job.folder / "published").iterdir())


def test_golden_rows_refuse_an_update_and_a_rollback_is_exact(job):
    one, two = _Server(), _Server()
    good = np.array([0.1, 0.9], np.float32)
    rows = golden.GoldenRows({}, {"click": np.array([0.0, 1.0], np.float32)})
    rows.write(job.folder / golden.FILE)
    with (
        support.listening(one) as first,
        support.listening(two) as second,
        job.publisher(first, second) as publisher,
        _without_rows(),
    ):
        for server in (one, two):
            server.predict = lambda rows: {"click": good}
        job.train(range(30), range(30))
        _published(publisher.publish())
        before = one.served()

        def predict(rows):
            served = {i: r.tobytes() for i, (_, r) in rows.items() if r.any()}
            return {"click": good if served == before else 1 - good}

        for server in (one, two):
            server.predict = predict
        job.train(range(20, 40))
        for outcome in publisher.publish().values():
            assert isinstance(outcome, guard.RefusedError), outcome
        assert one.served() == two.served() == before
        assert one.step == two.step == 2
        for server in (one, two):
            server.predict = lambda rows: {"click": good}
        _published(publisher.publish())
        after = one.served()
        assert after == two.served() != before
        undone = _published(publisher.roll_back())
        assert [u.to_step for u in undone] == [2, 2]
        assert one.served() == two.served() == before


def test_slow_servers_stop_neither_others_nor_training(job):
    # More of them than a parameter server has threads for its operations.
    slow, fast = [_Server() for _ in range(8)], _Server()
    goes_on = threading.Event()
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        waiting = [start(support.listening(server)) for server in slow]
        address = start(support.listening(fast))
        everywhere = [*waiting, address]
        publisher = start(job.publisher(*everywhere, guard=None, patience_secs=60.0))
        start(_without_rows())
        job.train(range(30), range(30))
        _published(publisher.publish())
        stuck = threading.Semaphore(0)

        def wait(server):
            if tf.make_ndarray(server.requests[-1].inputs["ids"]).size:
                stuck.release()
                goes_on.wait(60)

        for server in slow:
            server.before = lambda number, server=server: wait(server)
        job.train([1, 50])
        publisher.publish(0.0, only=waiting)
        for _ in slow:
            assert stuck.acquire(timeout=60)  # A parameter server waits for each.
        for step in range(3):
            job.train([step, 60 + step])
            outcomes = publisher.publish(0.0, only=[address])
            while not outcomes:
                outcomes = publisher.publish(0.1, only=[])
            (sent,) = _published(outcomes)
            assert sent.to_step == job.step
            assert publisher.busy == waiting
        goes_on.set()
        assert [s.to_step for s in _published(publisher.publish(only=[]))] == [3] * 8
        _published(publisher.publish())
    for server in slow:
        assert server.served() == fast.served() == job.served()


def test_an_update_that_is_cancelled_ends_soon(job):
    one = _Server()
    goes_on = threading.Event()
    with support.listening(one) as address:
        publisher = job.publisher(address)
        job.train(range(30))

        def wait(number):
            if number > 4:
                goes_on.wait(60)

        one.before = wait
        publisher.publish(0.5)
        publisher.close()
        goes_on.set()
        outcomes = publisher.publish(20.0, only=[])
        assert "publishing was cancelled" in str(outcomes[address])


def test_parameter_servers_use_the_files_of_tls(job):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(job.folder / "ca.pem")
    for name, host in (("server", "models.example"), ("client", "job.example")):
        made = authority.issue_cert(host)
        made.private_key_pem.write_to_path(job.folder / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(job.folder / f"{name}.pem")

    def files(name, **options):
        cert, key = job.folder / f"{name}.pem", job.folder / f"{name}.key"
        return tls.Tls(ca=job.folder / "ca.pem", cert=cert, key=key, **options)

    one = _Server()
    client = files("client", server_name="models.example")
    with (
        support.listening(one, files("server").server_credentials()) as address,
        job.publisher(address, tls=client) as publisher,
        _without_rows(),
    ):
        job.train(range(10))
        (sent,) = _published(publisher.publish())
    assert sent.updated == 30
    assert one.served() == job.served()


def test_a_folder_that_the_servers_do_not_share_is_named(job):
    one = _Server()
    one.step = 1
    with support.listening(one) as address, job.publisher(address) as publisher:
        job.train([1], [2])
        with mock.patch.object(undo_log.UndoLog, "part", _elsewhere):
            (outcome,) = publisher.publish().values()
        assert "must be a folder that all tasks of the job share" in str(outcome)
    assert not one.served()


def _elsewhere(log, number):
    return {"path": "/elsewhere/a.undo", "number": number, "id": log.id}


def test_a_parameter_server_dies_during_an_update(job, servers):
    one = _Server()
    with support.listening(one) as address, job.publisher(address) as publisher:
        job.train(range(30), range(30))
        _published(publisher.publish())
        before = one.served()
        job.train(range(20, 50))
        asked = len(one.requests)

        def kill(number):
            if number == asked + 12:
                servers.kill(1)

        one.before = kill
        (outcome,) = publisher.publish().values()
        assert isinstance(outcome, tf.errors.OpError), outcome
        assert one.step == 2
        assert one.served() != before
        # The next update begins by putting back what this one replaced.
        replaced = undo_log.read(undo_log.path(job.folder, address))
        assert replaced.after is None
        with update_client.UpdateClient(
            address, "default", support.LINEAGE, 3
        ) as client:
            server_update.put_back(client, replaced, 200)
    assert (one.served(), one.step) == (before, 2)
