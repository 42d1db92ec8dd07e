"""Tests of workers that share the rows of a store."""

import concurrent.futures
import functools
import threading
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import row_blocks
from monolith_tf.embedding.shard.chunk import Chunk
from monolith_tf.embedding.shard.shard_rows import ShardRows
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_STEPS = 150
_WORKERS = 3


def _run_threads(*works):
    """Runs functions at the same time; raises what one of them raised."""
    barrier = threading.Barrier(len(works))

    def begin(work):
        barrier.wait()
        work()

    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(begin, work) for work in works]:
            future.result(timeout=60)


class ConcurrencyTest(testing.TestCase):
    @parameterized.product(
        unknown=["insert", "zeros"],
        placement=[
            Placement(),
            Placement(num_shards=2),
            Placement(num_shards=2, devices=("/CPU:0", "/CPU:0")),
        ],
    )
    def test_no_update_is_lost_in_exact_mode(self, unknown, placement):
        # Whole numbers: the sum is exact in any order of the updates.
        table = TableSpec(
            name="t",
            slot=0,
            dim=2,
            unknown=unknown,
            initializer=ZerosSpec(),
            optimizer=optimizer_spec.SgdSpec(learning_rate=1.0),
        )
        store = EmbeddingStore(
            [table],
            [ColumnSpec(feature="f", table="t")],
            placement=placement,
            capacity=2048,
        )
        batches = self.rng.integers(0, 400, [_WORKERS, _STEPS, 16])
        # A hot id that every batch holds, and ids that all meet for the first time.
        batches[:, :, 0] = 7

        @tf.function
        def train(batches):
            for ids in batches:
                pulled = store.lookup({"f": ids}, training=True)
                with tf.GradientTape() as tape:
                    tape.watch(pulled.rows)
                    loss = -tf.reduce_sum(store.combine(pulled)["f"]["vec"])
                store.apply_gradients(pulled, tape.gradient(loss, pulled.rows), 0)

        train.get_concrete_function(tf.TensorSpec([_STEPS, 16], tf.int64))
        _run_threads(
            *(functools.partial(train, tf.constant(batch)) for batch in batches)
        )
        expected = np.bincount(batches.reshape(-1), minlength=400)
        pulled = store.lookup({"f": tf.range(400, dtype=tf.int64)}, training=False)
        embedding = store.combine(pulled)["f"]["vec"]
        self.assertAllEqual(embedding, np.stack([expected, expected], axis=1))
        self.assertEqual(store.counters()["rows"][0], np.count_nonzero(expected))
        self.assertEqual(store.counters()["inserted"][0], np.count_nonzero(expected))

    def test_a_lookup_of_rows_that_are_there_does_not_wait_for_others(self):
        store = EmbeddingStore(
            [TableSpec(name="t", slot=0, dim=2)],
            [ColumnSpec(feature="f", table="t")],
            capacity=64,
        )
        look = functools.partial(
            store.lookup, {"f": tf.constant([5], tf.int64)}, training=True
        )
        (before,) = look().rows.values()
        (shard,) = next(iter(store._shards.values()))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            found = shard.lock.run(lambda: pool.submit(look).result(timeout=30))
        (rows,) = found.rows.values()
        self.assertAllEqual(rows, before)

    @parameterized.parameters("insert", "zeros")
    def test_steps_go_on_while_rows_expire_are_evicted_loaded_and_get_room(
        self, unknown
    ):
        self.enter_context(mock.patch.object(row_blocks, "_MOVED_BYTES", 1 << 12))
        # Room is made 30 times, and must not double as often.
        self.enter_context(mock.patch.object(row_blocks, "_ADDED_SHARE", 1e-5))
        tables = [
            TableSpec(
                name=name,
                slot=slot,
                dim=2,
                unknown=unknown,
                initializer=ZerosSpec(),
                optimizer=optimizer_spec.SgdSpec(learning_rate=1.0),
                **limits,
            )
            for slot, (name, limits) in enumerate(
                {
                    "short_lived": {"expire_after_steps": 4},
                    "bounded": {"max_rows": 100, "when_full": "evict_oldest"},
                }.items()
            )
        ]
        columns = [ColumnSpec(feature=t.name, table=t.name) for t in tables]
        store = EmbeddingStore(tables, columns, capacity=16)
        (shard,) = next(iter(store._shards.values()))
        step = tf.Variable(0, dtype=tf.int64)

        @tf.function
        def train(batches):
            for ids in batches:
                now = step.assign_add(1)
                features = {"short_lived": ids, "bounded": ids + (1 << 48)}
                pulled = store.lookup(features, training=True, step=now)
                gradients = {n: tf.ones_like(rows) for n, rows in pulled.rows.items()}
                store.apply_gradients(pulled, gradients, now)

        train.get_concrete_function(tf.TensorSpec([_STEPS, 16], tf.int64))
        batches = self.rng.integers(0, 1500, [_WORKERS, _STEPS, 16])
        loaded = 10_000 + np.arange(300)  # No step asks for them.
        other = EmbeddingStore(tables, columns)
        restored = tf.range(20_000, 20_050, dtype=tf.int64)
        other.lookup({"short_lived": restored}, training=True, step=0)
        other.save(self.get_temp_dir())

        def maintain():
            for number, piece in enumerate(np.split(loaded, 30)):
                if number % 10 == 9:
                    store.restore(self.get_temp_dir(), keep_others=True)
                shard.load(
                    Chunk(
                        piece,
                        np.zeros([10, 2], np.float32),
                        np.zeros([10, 0], np.float32),
                        {"step": np.full(10, 1 << 40)},
                    )
                )
                shard.reserve(int(shard.rows.capacity) + 10)
                store.maintain(int(step))
                for chunk in ShardRows(shard).chunks(64):
                    self.assertLen(np.unique(chunk.ids), len(chunk.ids))

        _run_threads(
            *(functools.partial(train, tf.constant(batch)) for batch in batches),
            maintain,
        )
        end, num_free = int(shard.next_row), int(shard.num_free)
        numbers, ids, _ = shard.in_use(1, end)
        self.assertLen(np.unique(ids), len(ids))
        self.assertContainsSubset(loaded, ids)
        self.assertAllEqual(shard.index.search(tf.constant(ids)), numbers)
        self.assertLen(ids, int(shard.index._table.size()))
        free = shard.rows.read("free", tf.range(num_free, dtype=tf.int64))
        self.assertAllEqual(np.sort(np.concatenate([free, numbers])), np.arange(1, end))
        counters = store.counters()
        self.assertEqual(sum(counters["rows"].numpy()), len(ids))
        gone = sum(counters["expired"].numpy()) + sum(counters["evicted"].numpy())
        self.assertEqual(sum(counters["inserted"].numpy()) - gone, len(ids))
        self.assertGreater(gone, 0)
        self.assertEqual(sum(counters["overflow"].numpy()), 0)
