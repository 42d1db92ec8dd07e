"""Tests of sketches that go from some shards to others."""

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.shard import counting
from monolith_tf.embedding.shard import sketch_parts

_WIDTH = 1 << 12


def _counted(sketches, ids, count, threshold):
    """Counts ids in their shards; returns which have reached a threshold."""
    of_ids = layout.shard_of(tf.constant(ids), len(sketches)).numpy()
    reached = np.zeros(len(ids), bool)
    for place, sketch in enumerate(sketches):
        mine = tf.constant(ids[of_ids == place])
        reached[of_ids == place] = sketch.admit(
            mine, count * tf.ones_like(mine), threshold * tf.ones_like(mine)
        )
    return reached


def _sketches(count):
    return [counting.Sketch(min_threshold=1 << 20, width=_WIDTH) for _ in range(count)]


class SketchPartsTest(testing.TestCase):
    def test_twenty_restarts_lose_and_double_nothing(self):
        ids = np.unique(self.rng.integers(0, 2**48, 1000))
        unseen = np.unique(self.rng.integers(2**48, 2**49, 4000))
        sketches = _sketches(8)
        _counted(sketches, ids, 3, 4)
        for number in (8, 8, 5, 8, 4, 6, 3, 8, 8, 2, 7, 1, 8, 8, 8, 16, 8, 5, 9, 8):
            parts = list(sketch_parts.split(sketches))
            total = sum(int(part.exported[-1]) for part in parts)
            self.assertEqual(total, 3 * len(ids))  # Each occurrence is saved once.
            sketches = _sketches(number)
            sketch_parts.load(parts, sketches)
            # 3 is counted: nothing more needs to come for a threshold of 3.
            self.assertAllEqual(_counted(sketches, ids, 0, 3), np.ones(len(ids)))
            # An id that was never seen reaches 1 where 4 cells are all taken.
            bound = (len(ids) / _WIDTH) ** 4
            early = _counted(sketches, unseen, 0, 1).mean()
            self.assertLess(early, bound + 4 * np.sqrt(bound / len(unseen)))

    def test_as_many_shards_get_back_their_own(self):
        sketches, others = _sketches(4), _sketches(4)
        _counted(sketches, np.arange(500), 2, 4)
        sketch_parts.load(list(sketch_parts.split(sketches)), others)
        for sketch, other in zip(sketches, others, strict=True):
            self.assertAllEqual(sketch.export(), other.export())

    def test_inherited_counts_age_with_the_others(self):
        sketches = [counting.Sketch(min_threshold=4, width=4) for _ in range(2)]
        exported = sketches[0].zeros() + 9
        sketch_parts.load([sketch_parts.Part(1, 0, exported)], sketches)
        for sketch in sketches:
            sketch.age()
        *own, inherited = sketch_parts.split(sketches)
        for part in own:
            self.assertAllEqual(part.exported, 0 * exported)
        self.assertAllEqual(inherited.exported, exported // 2)

    def test_counts_do_not_overflow(self):
        (sketch,) = sketches = _sketches(1)
        sketch_parts.load([sketch_parts.Part(1, 0, sketch.zeros() + 2**40)], sketches)
        for _ in range(4):
            reached = _counted(sketches, np.arange(2), 2**30, 2**29)
            self.assertAllEqual(reached, [True, True])
