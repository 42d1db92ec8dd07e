"""Checkpoints that are written while steps run."""

import os
import threading
import time
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding.saved import write
from monolith_tf.embedding.shard import row_blocks
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.testing import server_processes

_TABLES = (
    TableSpec(name="kept", slot=1, dim=2),
    TableSpec(name="old", slot=2, dim=2, expire_after_steps=3),
    TableSpec(name="rare", slot=3, dim=3, admit_after=3),
)


def _store(**options):
    return EmbeddingStore(
        _TABLES,
        [ColumnSpec(feature=t.name, table=t.name) for t in _TABLES],
        **({"track_updates": True, "capacity": 64} | options),
    )


def _state(store):
    """All that a checkpoint should hold."""
    rows, counts = {}, {}
    for shards in store._shards.values():
        for shard in shards:
            for chunk in write.ShardRows(shard).chunks(1 << 20):
                for id_, row in zip(chunk.ids.tolist(), chunk.rows, strict=True):
                    rows[id_] = row.tobytes()
            if shard.admission is not None:
                ids, found = shard.admission.exact.export()
                counts |= dict(zip(ids.tolist(), found.tolist(), strict=True))
    return rows, counts, store.table_counters()


class _Training:
    """Trains in threads until it is stopped."""

    def __init__(self, store, num_threads=2):
        self._store = store
        self._stop = threading.Event()
        self.steps = [0]
        self.error = None

        @tf.function(autograph=False)
        def train(values, step):
            ids = {t.name: values + (t.slot << 48) for t in _TABLES}
            pulled = store.lookup(ids, training=True, step=step)
            ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
            store.apply_gradients(pulled, ones, step)

        self._train = train.get_concrete_function(
            tf.TensorSpec([None], tf.int64), tf.TensorSpec([], tf.int64)
        )
        self.take(0, 500)
        self._threads = [
            threading.Thread(target=self._run, args=(seed,))
            for seed in range(num_threads)
        ]

    def take(self, first, last):
        step = tf.constant(self.steps[0], tf.int64)
        self._train(tf.range(first, last, dtype=tf.int64), step)
        self.steps[0] += 1

    def _run(self, seed):
        rng = np.random.default_rng(seed)
        try:
            while not self._stop.is_set():
                first = int(rng.integers(0, 2000))
                self.take(first, first + 40)
        except Exception as error:  # Shown by the test's own thread.
            self.error = error

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        for thread in self._threads:
            thread.join()


class LiveCopyTest(testing.TestCase):
    def path(self, name):
        return os.path.join(self.get_temp_dir(), self._testMethodName, name)

    @parameterized.parameters("exact", "hogwild")
    @mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 12)
    @mock.patch.object(write, "LIVE_CHUNK_BYTES", 1 << 8)
    def test_copy_and_tail_are_the_state_at_the_end(self, mode):
        store = _store(mode=mode)
        with _Training(store) as training:
            copy = store.copy(self.path("copy"), step=training.steps[0])
            while not copy.is_done:
                store.maintain(training.steps[0] + 2)
                time.sleep(0.01)
        self.assertIsNone(training.error)
        copy.wait()
        step = training.steps[0]
        store.save(self.path("tail"), step=step, since=copy.mark, with_all_counts=True)
        other = _store()
        other.restore(self.path("copy"), deltas=[self.path("tail")])
        expected = _state(store)
        self.assertEqual(_state(other), expected)
        self.assertGreater(expected[2]["old"]["expired"], 0)
        # Alone it is not taken for one.
        with self.assertRaisesRegex(ValueError, "`deltas` must "):
            later = store.mark()
            store.save(self.path("later"), step=step, since=later)
            other.restore(self.path("copy"), deltas=[self.path("later")])

    def test_one_that_is_given_up_has_no_manifest(self):
        store = _store()
        _Training(store)
        with mock.patch.object(write, "LIVE_CHUNK_BYTES", 1):
            copy = store.copy(self.path("copy"), step=1)
            copy.stop()
            with self.assertRaisesRegex(RuntimeError, "was given up half written"):
                copy.wait()
        self.assertNotIn("manifest.json", os.listdir(self.path("copy")))

    def test_an_error_is_raised_by_wait(self):
        store = _store()
        copy = store.copy(self.path("copy"), step=1)
        copy.wait()
        copy = store.copy(self.path("copy"), step=1)
        with self.assertRaisesRegex(ValueError, "must not hold an embedding check"):
            copy.wait()


@pytest.mark.distributed
@pytest.mark.own_process
@pytest.mark.timeout(200)
class LiveCopyOnServersTest(testing.TestCase):
    def path(self, name):
        return os.path.join(self.get_temp_dir(), self._testMethodName, name)

    @pytest.mark.slow
    def test_servers_write_their_rows_and_one_dies(self):
        with (
            server_processes.ServerProcesses(2) as servers,
            mock.patch.object(write, "LIVE_CHUNK_BYTES", 1 << 10),
        ):
            store = _store(placement=servers.placement)
            with _Training(store, num_threads=1) as training:
                copy = store.copy(self.path("copy"), step=0)
                copy.wait()
            self.assertIsNone(training.error)
            tail = self.path("tail")
            store.save(tail, step=9, since=copy.mark, with_all_counts=True)
            store.save(self.path("full"), step=9)
            expected = _state(store)
            for chain in ([self.path("full")], [self.path("copy"), tail]):
                other = _store()
                other.restore(chain[0], deltas=chain[1:])
                self.assertEqual(_state(other), expected)
            # A folder that they do not share is named.
            with (
                mock.patch.object(os, "makedirs"),
                self.assertRaisesRegex(tf.errors.OpError, "must be a folder that"),
            ):
                store.save(self.path("elsewhere"), step=9)
            copy = store.copy(self.path("lost"), step=9)
            servers.kill(1)
            with self.assertRaises(tf.errors.OpError):
                copy.wait()
            self.assertNotIn("manifest.json", os.listdir(self.path("lost")))
