"""Tests of which ids earn a row, and when."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.shard import admission
from monolith_tf.embedding.spec import TableSpec

_STEP = tf.constant(5, tf.int64)


def _group(**tables):
    specs = [
        TableSpec(name=name, slot=slot, dim=2, **options)
        for slot, (name, options) in enumerate(tables.items())
    ]
    (group,) = layout.merge_tables(specs)
    return group


def _ids(*pairs):
    return tf.constant([(slot << 48) + value for slot, value in pairs], tf.int64)


def _int64(*values):
    return tf.constant(values, tf.int64)


class AdmissionTest(testing.TestCase):
    @parameterized.parameters("exact", "sketch")
    def test_each_table_has_its_own_threshold(self, policy):
        group = _group(
            rare={"admit_after": 3, "admission": policy},
            rarer={"admit_after": 4, "admission": policy},
            free={},
        )
        made = admission.make(group, seed=1)

        def admit(ids, counts, step):
            return made.admit(ids, group.table_of(ids), counts, step)

        ids = _ids((0, 7), (1, 7), (2, 7), (1, 8))
        self.assertAllEqual(
            admit(ids, _int64(2, 3, 1, 4), ()), [False, False, True, True]
        )
        ids = _ids((1, 7), (0, 7))
        self.assertAllEqual(admit(ids, _int64(1, 1), ()), [True, True])

    def test_policies_stand_side_by_side(self):
        group = _group(
            exact={"admit_after": 2},
            sketch={"admit_after": 2, "admission": "sketch"},
            drawn={"admit_after": 10**9, "admission": "probabilistic"},
            free={},
        )
        made = admission.make(group, seed=1)

        def admit(ids, counts, step):
            return made.admit(ids, group.table_of(ids), counts, step)

        ids = _ids((0, 7), (1, 7), (2, 7), (3, 7), (1, 8), (0, 8))
        ones = tf.ones_like(ids)
        first = admit(ids, ones, _STEP)
        self.assertAllEqual(first, [False, False, False, True, False, False])
        second = admit(ids, ones, _STEP)
        self.assertAllEqual(second, [True, True, False, True, True, True])

    def test_tables_that_admit_at_once_need_none(self):
        self.assertIsNone(admission.make(_group(free={}), seed=1))


class DrawTest(testing.TestCase):
    def draw(self, ids, count=1, threshold=5, step=3, seed=1):
        ids = tf.constant(ids, tf.int64)
        return admission.is_drawn(
            tf.constant(admission.draw_key(seed), tf.int64),
            ids,
            tf.fill([len(ids)], tf.constant(count, tf.int64)),
            tf.fill([len(ids)], tf.constant(threshold, tf.int64)),
            tf.constant(step, tf.int64),
        ).numpy()

    @parameterized.parameters((1, 5), (3, 5), (1, 2), (7, 100))
    def test_each_occurrence_has_its_chance(self, count, threshold):
        drawn = self.draw(np.arange(20_000), count, threshold)
        chance = 1 - (1 - 1 / threshold) ** count
        deviation = np.sqrt(chance * (1 - chance) / 20_000)
        self.assertAllClose(drawn.mean(), chance, rtol=0, atol=4 * deviation)

    def test_steps_and_seeds_draw_anew(self):
        drawn = [
            self.draw(np.arange(20_000), threshold=2, step=step, seed=seed)
            for step, seed in ((3, 1), (4, 1), (3, 2))
        ]
        for other in drawn[1:]:
            self.assertAllClose((drawn[0] == other).mean(), 0.5, rtol=0, atol=0.02)

    def test_depends_on_nothing_else(self):
        self.assertAllEqual(self.draw([5, 6, 7])[1:2], self.draw([6]))
