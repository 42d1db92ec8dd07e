"""Tests of rows to embeddings, and of gradients back, against NumPy."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding.lookup import expansion
from monolith_tf.embedding.spec import ColumnSpec


class SumByRowTest(testing.TestCase):
    @parameterized.parameters(1, 3, 4, 16, 31, 32, 37, 45, 62, 64)
    def test_adds_in_order_to_the_last_bit(self, dim):
        values = self.rng.normal(size=[50, dim]).astype(np.float32)
        places = self.rng.integers(0, 9, 50).astype(np.int32)
        expected = np.zeros([11, dim], np.float32)
        for place, value in zip(places, values, strict=True):
            expected[place] += value
        sums = tf.function(expansion.sum_by_row)(values, places, tf.constant(11))
        self.assertAllEqual(sums, expected)

    def test_nothing_to_add_gives_zeros(self):
        places = tf.zeros([0], tf.int32)
        sums = expansion.sum_by_row(tf.zeros([0, 8]), places, tf.constant(3))
        self.assertAllEqual(sums, np.zeros([3, 8]))

    def test_not_finite_values_stay_in_their_row(self):
        values = tf.constant([[np.inf] * 4, [np.nan] * 4, [1.0] * 4])
        sums = expansion.sum_by_row(values, tf.constant([0, 1, 2]), tf.constant(4))
        self.assertAllEqual(sums[:, 0], [np.inf, np.nan, 1.0, 0.0])


class CombineTest(testing.TestCase):
    def test_matches_loops_over_features(self):
        columns = [
            ColumnSpec(feature=f"{combiner}_{i}", table="t", combiner=combiner, **more)
            for combiner, more in (
                ("first_n", {"max_length": 2}),
                ("mean", {}),
                ("none", {}),
                ("sum", {}),
            )
            for i in range(2)
        ]
        columns.append(ColumnSpec(feature="single_0", table="t"))
        columns.append(ColumnSpec(feature="single_1", table="t"))
        batch = 4
        rows = self.rng.normal(size=[6, 3]).astype(np.float32)
        splits, singles, lists, expected = {}, [], [], {}
        for column in columns:
            if column.feature.startswith("single"):
                places = self.rng.integers(0, 6, batch)
                splits[column.feature] = ()
                singles.append(places)
                expected[column.feature] = rows[places]
                continue
            lengths = self.rng.integers(0, 4, batch)
            places = [self.rng.integers(0, 6, length) for length in lengths]
            splits[column.feature] = tf.constant(np.cumsum([0, *lengths]))
            lists.extend(places)
            expected[column.feature] = _combined(column.combiner, places, rows)
        inverse = tf.constant(np.concatenate(singles + lists), tf.int32)
        embeddings = tf.function(expansion.combine)(columns, splits, rows, inverse)
        self.assertEqual(set(embeddings), set(expected))
        for feature, value in expected.items():
            actual = embeddings[feature]
            if isinstance(actual, tf.RaggedTensor):
                actual = actual.values
            self.assertAllClose(actual, value, msg=feature)

    def test_number_of_operations_does_not_grow_with_lists(self):
        def num_operations(num_features):
            columns = [
                ColumnSpec(feature=f"f{i}", table="t") for i in range(num_features)
            ]

            @tf.function
            def combine(rows, inverse, splits):
                return expansion.combine(columns, splits, rows, inverse)

            splits = {
                column.feature: tf.TensorSpec([None], tf.int64) for column in columns
            }
            graph = combine.get_concrete_function(
                tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int32), splits
            ).graph
            passive = {"Placeholder", "Identity", "Const", "StridedSlice"}
            types = [operation.type for operation in graph.get_operations()]
            return len([type_ for type_ in types if type_ not in passive])

        self.assertLessEqual(num_operations(40), num_operations(4) + 2)

    def test_gradient_is_the_sum_over_occurrences(self):
        rows = tf.constant(self.rng.normal(size=[3, 4]).astype(np.float32))
        inverse = tf.constant([2, 0, 2, 2], tf.int32)
        upstream = self.rng.normal(size=[4, 4]).astype(np.float32)
        with tf.GradientTape() as tape:
            tape.watch(rows)
            loss = tf.reduce_sum(expansion.expand(rows, inverse) * upstream)
        gradient = tape.gradient(loss, rows)
        self.assertNotIsInstance(gradient, tf.IndexedSlices)
        expected = [upstream[1], np.zeros(4), upstream[0] + upstream[2] + upstream[3]]
        self.assertAllClose(gradient, expected)


def _combined(combiner, places, rows):
    dim = rows.shape[1]
    if combiner == "none":
        return rows[np.concatenate(places)]
    if combiner == "first_n":
        padded = np.zeros([len(places), 2, dim], np.float32)
        for i, here in enumerate(places):
            padded[i, : len(here[:2])] = rows[here[:2]]
        return padded
    sums = np.array([rows[here].sum(0) for here in places]).reshape(-1, dim)
    if combiner == "sum":
        return sums
    return sums / np.maximum([len(here) for here in places], 1)[:, np.newaxis]
