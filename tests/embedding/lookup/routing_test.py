"""Tests of collecting a batch's distinct ids."""

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.lookup import distinct
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.lookup import routing
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec


def _router(*columns, **table):
    tables = [
        TableSpec(name="a", slot=1, dim=2, **table),
        TableSpec(name="b", slot=2, dim=2),
        TableSpec(name="wide", slot=3, dim=3),
    ]
    return routing.Router(layout.merge_tables(tables), columns)


class RouterTest(testing.TestCase):
    def test_each_id_of_a_group_stands_once(self):
        router = _router(
            ColumnSpec(feature="list", table="a", combiner="mean"),
            ColumnSpec(feature="one", table="a"),
            ColumnSpec(feature="other", table="b"),
            ColumnSpec(feature="far", table="wide"),
        )
        ids = {
            "list": tf.ragged.constant([[7, 5], [], [7]], dtype=tf.int64),
            "one": tf.constant([5, 6, 5], tf.int64),
            "other": tf.constant([70, 80, 70], tf.int64),
            "far": tf.constant([1, 1, 1], tf.int64),
        }
        distinct, splits = router.distinct(ids)
        self.assertLen(distinct, 2)
        near, far = distinct.values()
        self.assertLen(set(near.ids.numpy().tolist()), len(near.ids))
        # Features with one id per example come first.
        self.assertAllEqual(
            tf.gather(near.ids, near.inverse), [5, 6, 5, 70, 80, 70, 7, 5, 7]
        )
        self.assertAllEqual(far.ids, [1])
        self.assertAllEqual(splits["list"], [0, 2, 2, 3])
        self.assertEqual(splits["one"], ())
        self.assertEqual(near.counts, ())

    def test_counts_occurrences_only_where_admission_asks(self):
        router = _router(
            ColumnSpec(feature="one", table="a"),
            ColumnSpec(feature="two", table="a"),
            admit_after=2,
        )
        ids = {
            "one": tf.constant([5, 6], tf.int64),
            "two": tf.constant([5, 5], tf.int64),
        }
        (batch,) = router.distinct(ids)[0].values()
        self.assertAllEqual(batch.ids, [5, 6])
        self.assertAllEqual(batch.counts, [3, 1])

    def test_features_that_are_not_given_are_left_out(self):
        router = _router(
            ColumnSpec(feature="one", table="a"),
            ColumnSpec(feature="far", table="wide"),
        )
        distinct, splits = router.distinct({"one": tf.constant([5], tf.int64)})
        self.assertLen(distinct, 1)
        self.assertEqual(splits, {"one": ()})

    def test_long_lists_are_cut_before_the_lookup(self):
        router = _router(
            ColumnSpec(feature="list", table="a", combiner="sum", max_length=2)
        )
        ids = {"list": tf.ragged.constant([[7, 5, 3], [9]], dtype=tf.int64)}
        distinct, splits = router.distinct(ids)
        (batch,) = distinct.values()
        self.assertAllEqual(batch.ids, [7, 5, 9])
        self.assertAllEqual(splits["list"], [0, 2, 3])

    def test_single_ids_are_lists_of_one_where_lists_are_kept(self):
        router = _router(ColumnSpec(feature="one", table="a", combiner="none"))
        for batch in (4, 5):
            ids = {"one": tf.range(batch, dtype=tf.int64)}
            _, row_splits = router.distinct(ids)
            self.assertAllEqual(row_splits["one"], np.arange(batch + 1))

    def test_masks_say_where_an_id_stands(self):
        column = ColumnSpec(feature="f", table="a", combiner="first_n", max_length=3)
        router = _router(column)
        lists = tf.ragged.constant([[7, 5, 3, 2], [], [9]], dtype=tf.int64)
        masks = router.masks(router.distinct({"f": lists})[1])
        self.assertAllEqual(
            masks["f"], [[True, True, True], [False] * 3, [True, False, False]]
        )
        one_each = tf.constant([7, 5], tf.int64)
        masks = router.masks(router.distinct({"f": one_each})[1])
        self.assertAllEqual(masks["f"], [[True, False, False]] * 2)

    def test_ids_of_each_table_are_gone_through_by_themselves(self):
        router = _router(
            ColumnSpec(feature="one", table="a"),
            ColumnSpec(feature="other", table="b"),
            ColumnSpec(feature="far", table="wide"),
        )
        ids = {name: tf.TensorSpec([None], tf.int64) for name in ("one", "other")}
        graph = tf.function(router.distinct).get_concrete_function(ids).graph
        types = [op.type for op in graph.get_operations()]
        self.assertEqual(types.count("Unique"), 2)

    def test_partition_gives_each_id_to_its_shard(self):
        ids = tf.constant(self.rng.integers(0, 2**60, 100))
        counts = tf.range(100, dtype=tf.int64)
        batch = distinct.Distinct(ids, tf.range(100), counts)
        parts = routing.partition(batch, 3)
        for shard, part in enumerate(parts):
            self.assertAllEqual(part.ids, tf.gather(ids, part.places))
            self.assertAllEqual(part.counts, part.places)
            self.assertAllEqual(
                layout.shard_of(part.ids, 3), np.full(len(part.ids), shard)
            )
        places = np.concatenate([part.places for part in parts])
        self.assertAllEqual(np.sort(places), np.arange(100))

    def test_rejects_a_column_of_a_missing_table(self):
        with self.assertRaisesRegex(ValueError, "feature='f', table='c'; the tables"):
            _router(ColumnSpec(feature="f", table="c"))

    def test_rejects_two_columns_of_one_feature(self):
        column = ColumnSpec(feature="f", table="a")
        with self.assertRaisesRegex(ValueError, "differ in feature.*'f' twice"):
            _router(column, column)

    def test_rejects_ids_of_an_unknown_feature(self):
        router = _router(ColumnSpec(feature="f", table="a"))
        with self.assertRaisesRegex(ValueError, r"features=\['g'\]; the columns"):
            router.distinct({"g": tf.constant([1], tf.int64)})

    def test_rejects_ids_of_another_rank(self):
        router = _router(ColumnSpec(feature="f", table="a"))
        with self.assertRaisesRegex(ValueError, r"feature='f', shape=\(1, 1\)"):
            router.distinct({"f": tf.constant([[1]], tf.int64)})

    def test_rejects_batches_of_different_sizes(self):
        router = _router(
            ColumnSpec(feature="f", table="a"), ColumnSpec(feature="g", table="wide")
        )
        ids = {"f": tf.constant([1], tf.int64), "g": tf.constant([1, 2], tf.int64)}
        with self.assertRaisesRegex(ValueError, "one batch size.*'f': 1, 'g': 2"):
            router.distinct(ids)
