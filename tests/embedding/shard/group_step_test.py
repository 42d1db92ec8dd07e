"""Tests of what a step sends to shards that live elsewhere."""

import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.optimizer_spec import SgdSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_TABLE_OPS = {"LookupTableFindV2", "LookupTableInsertV2", "MutexLock"}


def _store(**placement):
    table = TableSpec(
        name="t",
        slot=0,
        dim=2,
        initializer=ZerosSpec(),
        optimizer=SgdSpec(learning_rate=1.0),
    )
    return EmbeddingStore(
        [table],
        [ColumnSpec(feature="f", table="t")],
        placement=Placement(num_shards=2, **placement),
        capacity=64,
    )


def _step(store):
    @tf.function
    def step(ids):
        pulled = store.lookup({"f": ids}, training=True)
        gradients = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
        store.apply_gradients(pulled, gradients, 0)

    return step


class GroupStepTest(testing.TestCase):
    def test_a_shard_elsewhere_is_asked_by_one_call_and_told_by_another(self):
        with tf.device("CPU:0"):
            device = tf.identity(0).device  # Once a server has run here, its own.
        store = _store(devices=(device, device))
        step = _step(store)
        graph = step.get_concrete_function(tf.TensorSpec([4], tf.int64)).graph
        operations = graph.get_operations()
        calls = [op for op in operations if op.type == "StatefulPartitionedCall"]
        self.assertEqual([op.device for op in calls], [device] * 4)
        functions = {f.signature.name: f for f in graph.as_graph_def().library.function}
        for call in calls:
            called = functions[call.get_attr("f").name]
            self.assertTrue(called.attr["_noinline"].b)
        self.assertEmpty(_TABLE_OPS & {op.type for op in operations})
        step(tf.constant([3, 5, 5, 7], tf.int64))
        pulled = store.lookup({"f": tf.range(8, dtype=tf.int64)}, training=False)
        embedding = store.combine(pulled)["f"]["vec"]
        expected = [[-1.0 * (i in (3, 5, 7))] * 2 for i in range(8)]
        self.assertAllEqual(embedding, expected)

    def test_all_shards_share_the_functions_of_a_step(self):
        step = _step(_store())
        graph = step.get_concrete_function(tf.TensorSpec([4], tf.int64)).graph
        calls = [
            op.get_attr("f").name
            for op in graph.get_operations()
            if op.type == "StatefulPartitionedCall"
        ]
        self.assertLen(calls, 4)
        self.assertLen(set(calls), 2)


if __name__ == "__main__":
    tf.test.main()
