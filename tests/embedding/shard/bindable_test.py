"""One trace serves all that have variables of the same kinds."""

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.shard import bindable
from monolith_tf.embedding.shard.id_table import IdTable
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore

_TRACES = []


class _Counter(bindable.Bindable):
    own = "_count", "_seen", "_limits"
    shared = ("_factor",)

    def __init__(self, factor, limit=100, size=1):
        self._factor = factor
        self._count = tf.Variable([0] * size, dtype=tf.int64, trainable=False)
        self._seen = IdTable()
        self._limits = {"high": tf.Variable(limit, dtype=tf.int64, trainable=False)}
        self.packed = bindable.Packed(self)

    def add(self, ids):
        _TRACES.append(self._factor)
        with tf.control_dependencies([self._seen.insert(ids, ids)]):
            added = self._count.assign_add(
                tf.repeat(
                    self._factor * tf.reduce_sum(ids), tf.size(self._count.read_value())
                )
            )
        with tf.control_dependencies([added]):
            return tf.minimum(
                self._count.read_value(), self._limits["high"].read_value()
            )


def _ids(*values):
    return tf.constant(values, tf.int64)


class CallTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        _TRACES.clear()

    def test_each_works_on_its_own_by_one_trace(self):
        first, second = _Counter(3), _Counter(3, limit=50, size=2)
        self.assertAllEqual(first.packed.call("add", _ids(1, 2)), [9])
        self.assertAllEqual(second.packed.call("add", _ids(20)), [50, 50])
        self.assertAllEqual(first.packed.call("add", _ids(4)), [21])
        self.assertAllEqual(first._count, [21])
        self.assertAllEqual(second._count, [60, 60])
        self.assertAllEqual(second._seen.lookup(_ids(1, 20)), [0, 20])
        self.assertEqual(_TRACES, [3])

    def test_what_is_shared_makes_another_trace(self):
        self.assertAllEqual(_Counter(5).packed.call("add", _ids(1)), [5])
        self.assertAllEqual(_Counter(7).packed.call("add", _ids(1)), [7])
        self.assertEqual(_TRACES, [5, 7])

    def test_in_a_graph_calls_of_one_object_keep_their_order(self):
        counter = _Counter(11, limit=10**6)

        @tf.function
        def twice(ids):
            first = counter.packed.call("add", ids)
            return first, counter.packed.call("add", ids + 1)

        first, second = twice(_ids(1))
        self.assertAllEqual([first, second], [[11], [33]])
        self.assertEqual(_TRACES, [11])


class StoreTest(testing.TestCase):
    def test_tables_of_unlike_widths_and_optimizer_numbers_of_one_kind_share(self):
        """What each learns is what it learns alone."""
        tables = [
            TableSpec(
                name=f"t{dim}",
                slot=slot,
                dim=dim,
                optimizer=optimizer_spec.AdamSpec(learning_rate=0.1),
            )
            for slot, dim in enumerate((1, 3, 4, 9))
        ]

        def rows_of(tables):
            store = EmbeddingStore(
                tables,
                [ColumnSpec(feature=table.name, table=table.name) for table in tables],
                placement=Placement(num_shards=2),
            )
            ids = tf.range(50, dtype=tf.int64)

            @tf.function
            def step(number):
                pulled = store.lookup(
                    {t.name: ids + (t.slot << 48) for t in tables},
                    training=True,
                    step=number,
                )
                gradients = {
                    name: tf.sin(10.0 * rows) for name, rows in pulled.rows.items()
                }
                store.apply_gradients(pulled, gradients, number)

            for number in range(3):
                step(tf.constant(number, tf.int64))
            return {
                id_: row
                for chunk in store.rows()
                for id_, row in zip(
                    chunk.ids.tolist(), np.array(chunk.weights), strict=True
                )
            }

        together = rows_of(tables)
        self.assertLen(together, 200)
        for table in tables:
            alone = rows_of([table])
            self.assertLen(alone, 50)
            for id_, row in alone.items():
                self.assertAllEqual(together[id_], row)
                self.assertLen(row, table.dim)
