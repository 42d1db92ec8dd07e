"""Tests of workers that share the rows of a store."""

import threading

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_STEPS = 150
_WORKERS = 3


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
        barrier = threading.Barrier(_WORKERS)

        def work(worker):
            barrier.wait()
            train(tf.constant(batches[worker]))

        threads = [
            threading.Thread(target=work, args=[worker]) for worker in range(_WORKERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        expected = np.bincount(batches.reshape(-1), minlength=400)
        pulled = store.lookup({"f": tf.range(400, dtype=tf.int64)}, training=False)
        embedding = store.combine(pulled)["f"]["vec"]
        self.assertAllEqual(embedding, np.stack([expected, expected], axis=1))
        self.assertEqual(store.counters()["rows"][0], np.count_nonzero(expected))
        self.assertEqual(store.counters()["inserted"][0], np.count_nonzero(expected))
