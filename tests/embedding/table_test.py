"""Tests of the reference table against numbers worked by hand."""

import numpy as np

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.initializer_spec import ConstantSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.table import Table

_SGD = optimizer_spec.SgdSpec(learning_rate=0.5)


def _table(**options):
    start = ConstantSpec(value=2.0)
    return Table(
        TableSpec(
            **(
                {"name": "t", "dim": 1, "optimizer": _SGD, "initializer": start}
                | options
            )
        )
    )


def _gradients(*values):
    return np.array(values, np.float32)[:, np.newaxis]


class TableTest(testing.TestCase):
    def test_training_inserts_and_evaluation_does_not(self):
        table = _table()
        self.assertAllEqual(table.lookup([7], training=False), [[0.0]])
        self.assertEmpty(table.rows)
        self.assertAllEqual(table.lookup([7, 7], training=True), [[2.0], [2.0]])
        self.assertAllEqual(table.lookup([7, 8], training=False), [[2.0], [0.0]])
        self.assertEqual(table.counters["inserted"], 1)

    def test_sums_the_gradients_of_an_id(self):
        table = _table()
        table.lookup([7, 8, 7], training=True)
        table.apply_gradients([7, 8, 7], _gradients(1, 2, 4), step=0)
        # 2 - 0.5 * (1 + 4), and 2 - 0.5 * 2.
        self.assertAllEqual(table.lookup([7, 8], training=False), [[-0.5], [1.0]])

    def test_unknown_zeros_inserts_at_the_first_gradient(self):
        table = _table(unknown="zeros")
        self.assertAllEqual(table.lookup([7], training=True), [[0.0]])
        table.apply_gradients([7], _gradients(1), step=0)
        self.assertAllEqual(table.lookup([7], training=True), [[1.5]])

    def test_admits_after_occurrences_and_drops_gradients_before(self):
        table = _table(admit_after=3)
        self.assertAllEqual(table.lookup([7, 7], training=True), [[0.0], [0.0]])
        table.apply_gradients([7, 7], _gradients(1, 1), step=0)
        self.assertAllEqual(table.lookup([7], training=True), [[2.0]])
        self.assertEqual(table.counters, {"refused": 1, "dropped": 1, "inserted": 1})

    def test_clips_the_norm_of_a_row(self):
        table = _table(dim=2, clip_norm=1.0)
        table.lookup([7], training=True)
        # Norm 5 is scaled down to 1: (0.6, 0.8).
        table.apply_gradients([7], np.array([[3.0, 4.0]], np.float32), step=0)
        self.assertAllClose(table.lookup([7], training=False), [[1.7, 1.6]])

    def test_slices_learn_by_their_own_rules(self):
        start = ConstantSpec(value=1.0)
        adagrad = optimizer_spec.AdagradSpec(
            learning_rate=1.0, initial_accumulator_value=9.0
        )
        slices = (
            SliceSpec(name="bias", dim=1, optimizer=_SGD, initializer=start),
            SliceSpec(name="vec", dim=1, optimizer=adagrad, initializer=start),
        )
        table = Table(TableSpec(name="t", slices=slices))
        table.lookup([7], training=True)
        table.apply_gradients([7], np.array([[4.0, 4.0]], np.float32), step=0)
        # 1 - 0.5 * 4, and 1 - 4 / sqrt(9 + 16).
        self.assertAllClose(table.lookup([7], training=False), [[-1.0, 0.2]])

    def test_drops_what_is_too_old_and_then_too_many(self):
        table = _table(expire_after_steps=10, max_rows=2, when_full="evict_oldest")
        for id_, step in ((1, 0), (2, 5), (3, 5), (4, 4), (5, 8)):
            table.lookup([id_], training=True, step=step)
        table.maintain(step=10, secs=0)
        # 1 is ten steps old; of the others 4 is the oldest, then 2 and 3 alike.
        self.assertEqual(set(table.rows), {3, 5})
        self.assertEqual((table.counters["expired"], table.counters["evicted"]), (1, 2))

    def test_expires_by_days_since_the_last_update(self):
        table = _table(expire_after_days=1.0)
        table.lookup([1, 2], training=True, secs=0)
        table.apply_gradients([2], _gradients(0), step=0, secs=10)
        table.maintain(step=0, secs=86_399)
        self.assertEqual(set(table.rows), {1, 2})
        table.maintain(step=0, secs=86_400)
        self.assertEqual(set(table.rows), {2})

    def test_initial_values_depend_on_seed_table_and_id_only(self):
        def values(ids, seed=1, name="t"):
            table = Table(TableSpec(name=name, dim=3), seed)
            return table.lookup(ids, training=True)

        self.assertAllEqual(values([5, 6])[1], values([9, 6])[1])
        self.assertNotAllEqual(values([5]), values([6]))
        self.assertNotAllEqual(values([5]), values([5], seed=2))
        self.assertNotAllEqual(values([5]), values([5], name="u"))

    def test_an_empty_batch_changes_nothing(self):
        table = _table(dim=3)
        self.assertEqual(table.lookup([], training=True).shape, (0, 3))
        table.apply_gradients([], np.zeros([0, 3], np.float32), step=0)
        self.assertEmpty(table.rows)
