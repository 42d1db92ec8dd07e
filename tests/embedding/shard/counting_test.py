"""Tests of counting ids, exactly and by a sketch."""

import collections

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.shard import counting


def _int64(*values):
    return tf.constant(values, tf.int64)


class ExactCountsTest(testing.TestCase):
    def test_counts_up_to_the_threshold(self):
        exact = counting.ExactCounts()
        reached = exact.admit(_int64(7, 8, 9), _int64(1, 3, 1), _int64(3, 3, 1))
        self.assertAllEqual(reached, [False, True, True])
        self.assertAllEqual(exact.admit(_int64(7), _int64(1), _int64(3)), [False])
        self.assertAllEqual(exact.admit(_int64(7), _int64(1), _int64(3)), [True])

    def test_counts_anew_after_the_threshold(self):
        exact = counting.ExactCounts()
        exact.admit(_int64(7), _int64(1), _int64(2))
        exact.admit(_int64(7), _int64(1), _int64(2))
        self.assertAllEqual(exact.admit(_int64(7), _int64(1), _int64(2)), [False])

    def test_counts_go_through_export_and_load(self):
        exact = counting.ExactCounts()
        exact.admit(_int64(8, 7), _int64(4, 8), _int64(9, 9))
        ids, counts = exact.export()
        self.assertAllEqual(ids, [7, 8])
        self.assertAllEqual(counts, [8, 4])
        other = counting.ExactCounts()
        other.load(ids, counts)
        reached = other.admit(_int64(7, 8), _int64(1, 1), _int64(9, 9))
        self.assertAllEqual(reached, [True, False])
        other.clear()
        self.assertAllEqual(other.admit(_int64(8), _int64(8), _int64(9)), [False])


class SketchTest(testing.TestCase):
    def test_takes_16_mebibytes_by_default(self):
        sketch = counting.Sketch(min_threshold=2)
        self.assertEqual(int(tf.size(sketch._cells)) * tf.int32.size, 16 << 20)

    def test_is_never_late_and_seldom_early(self):
        sketch = counting.Sketch(min_threshold=40, width=1024)
        admit = tf.function(sketch.admit)
        truth = collections.Counter()
        early = total = 0
        for _ in range(40):
            ids, counts = np.unique(self.rng.zipf(1.3, 60) % 2**40, return_counts=True)
            threshold = np.full(len(ids), 4)
            reached = admit(
                tf.constant(ids), tf.constant(counts), tf.constant(threshold)
            ).numpy()
            for id_, count, is_reached in zip(ids, counts, reached, strict=True):
                truth[id_] += count
                self.assertTrue(is_reached or truth[id_] < 4)
                early += is_reached and truth[id_] < 4
                total += 1
        self.assertLess(early / total, 0.05)

    def test_ids_that_share_cells_are_all_counted(self):
        sketch = counting.Sketch(min_threshold=4, width=2)
        ids = tf.range(100, dtype=tf.int64)
        sketch.admit(ids, tf.ones_like(ids), ids)
        exported = sketch.export()
        self.assertAllEqual(exported[:-1].reshape(4, 2).sum(axis=1), [100] * 4)
        self.assertEqual(exported[-1], 100)

    def test_halves_when_a_quarter_of_the_threshold_fills_the_cells(self):
        sketch = counting.Sketch(min_threshold=8, width=4)
        sketch.admit(_int64(7), _int64(8), _int64(9))
        sketch.age()
        self.assertAllEqual(sketch.admit(_int64(7), _int64(1), _int64(9)), [True])
        sketch.age()  # 9 is more than 4 * 8 / 4: it becomes 4.
        self.assertAllEqual(sketch.admit(_int64(7), _int64(1), _int64(6)), [False])
        self.assertAllEqual(sketch.admit(_int64(7), _int64(1), _int64(6)), [True])

    def test_sketches_add_up(self):
        ids = tf.constant(self.rng.integers(0, 2**60, 50))
        one = tf.ones_like(ids)
        whole, first, second = (counting.Sketch(2, width=256) for _ in range(3))
        whole.admit(ids, one, one)
        first.admit(ids[:20], one[:20], one[:20])
        second.admit(ids[20:], one[20:], one[20:])
        self.assertAllEqual(first.export() + second.export(), whole.export())
        first.load(whole.export())
        self.assertAllEqual(first.admit(ids, one, 2 * one), np.ones(50, bool))
        first.clear()
        self.assertAllEqual(first.export(), np.zeros(4 * 256 + 1))
