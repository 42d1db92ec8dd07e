"""A store on parameter servers makes room while workers train."""

import pathlib
import socket
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import read as saved_tables
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.shard import row_blocks
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_STEPS = 20
_CALLS = 8
_DEVICES = tuple(f"/job:ps/task:{task}/device:CPU:0" for task in range(2))


def _cluster(num_ps, num_workers):
    """Servers in this process, and a coordinator of them."""

    def addresses(count):
        sockets = [socket.socket() for _ in range(count)]
        for one in sockets:
            one.bind(("localhost", 0))
        found = [f"localhost:{one.getsockname()[1]}" for one in sockets]
        for one in sockets:
            one.close()
        return found

    spec = tf.train.ClusterSpec(
        {"ps": addresses(num_ps), "worker": addresses(num_workers)}
    )
    config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=8)
    servers = [
        tf.distribute.Server(
            spec, job_name=job, task_index=task, protocol="grpc", config=config
        )
        for job, tasks in spec.as_dict().items()
        for task in range(len(tasks))
    ]
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, rpc_layer="grpc"
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    return tf.distribute.coordinator.ClusterCoordinator(strategy), servers


def _rows(store):
    return {
        id_: weights.tobytes()
        for chunk in store.rows()
        for id_, weights in zip(chunk.ids.tolist(), chunk.weights, strict=True)
    }


@pytest.mark.distributed
@pytest.mark.timeout(120)
class ParameterServersTest(testing.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # A process is connected to one cluster.
        cls.coordinator, cls.servers = _cluster(num_ps=2, num_workers=2)

    @mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 11)
    def test_no_id_is_refused_and_no_update_lost(self):
        coordinator = self.coordinator
        table = TableSpec(
            name="t",
            slot=0,
            dim=2,
            initializer=ZerosSpec(),
            optimizer=optimizer_spec.AdagradSpec(),
            expire_after_steps=1 << 40,
        )
        sgd = optimizer_spec.SgdSpec(learning_rate=1.0)
        other = TableSpec(
            name="u", slot=1, dim=2, initializer=ZerosSpec(), optimizer=sgd
        )
        store = EmbeddingStore(
            [table, other],
            [ColumnSpec(feature=name, table=name) for name in ("t", "u")],
            placement=Placement(num_shards=2, devices=_DEVICES),
            capacity=16,
        )

        @tf.function
        def train(batches):
            for ids in batches:
                features = {"t": ids, "u": ids + (1 << 48)}
                pulled = store.lookup(features, training=True, step=0)
                gradients = {
                    name: -tf.ones_like(rows) for name, rows in pulled.rows.items()
                }
                store.apply_gradients(pulled, gradients, 0)

        batches = self.rng.integers(0, 1500, [_CALLS, _STEPS, 16])
        for batch in batches[: _CALLS // 2]:
            coordinator.schedule(train, (tf.constant(batch),))
        coordinator.join()
        store.maintain(0)
        for batch in batches[_CALLS // 2 :]:
            coordinator.schedule(train, (tf.constant(batch),))
        coordinator.join()
        self.assertLessEqual(train.experimental_get_tracing_count(), 2)
        distinct = sum(
            (np.bincount(batch, minlength=1500) > 0).astype(int)
            for batch in batches.reshape(-1, 16)
        )
        rows = {
            id_: weights
            for chunk in store.rows()
            for id_, weights in zip(chunk.ids.tolist(), chunk.weights, strict=True)
        }
        for id_, count in enumerate(distinct.tolist()):
            self.assertEqual(id_ in rows, count > 0)
            if count:
                self.assertAllEqual(rows[id_ + (1 << 48)], [count, count])
        for counters in store.table_counters().values():
            self.assertEqual(counters["rows"], np.count_nonzero(distinct))
            self.assertEqual(counters["overflow"] + counters["dropped"], 0)

    def test_no_row_of_a_checkpoint_that_is_damaged_while_it_is_read_stays(self):
        store = EmbeddingStore(
            [TableSpec(name="t", slot=0, dim=2)],
            [ColumnSpec(feature="t", table="t")],
            placement=Placement(num_shards=2, devices=_DEVICES),
            capacity=16,
        )
        folder = pathlib.Path(self.get_temp_dir()) / self.id()
        store.lookup({"t": tf.range(100, dtype=tf.int64)}, training=True, step=0)
        store.save(str(folder / "older"))
        older = _rows(store)
        self.assertLen(older, 100)
        store.lookup({"t": tf.range(500, dtype=tf.int64)}, training=True, step=1)
        store.save(str(folder / "newer"))
        path = max((folder / "newer").glob("*.rows"))
        verify = saved_tables.SavedTables.verify

        def then_flip(tables):
            verify(tables)
            data = bytearray(path.read_bytes())
            data[-5] ^= 1
            path.write_bytes(data)

        with (
            mock.patch.object(saved_tables.SavedTables, "verify", then_flip),
            self.assertRaisesRegex(sealed.DamagedError, "shard-1-of-2.rows differs"),
        ):
            store.restore(str(folder / "newer"))
        self.assertEmpty(_rows(store))
        store.restore(str(folder / "older"))
        self.assertEqual(_rows(store), older)
