"""Tests of learned item intervals."""

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf import losses
from monolith_tf import testing


class ItemIntervalTest(testing.TestCase):
    def test_converges_to_the_intervals_of_a_stream(self):
        frequency = losses.ItemInterval(num_buckets=4096, decay=0.05)
        rng = np.random.default_rng(3)
        chances = np.array([1.0, 0.5, 0.1])
        update = tf.function(frequency, reduce_retracing=True)
        for step in range(600):
            ids = np.flatnonzero(rng.random(3) < chances).astype(np.int64)
            update(tf.constant(ids), tf.constant(step, tf.int64))
        intervals = frequency.lookup([0, 1, 2])
        self.assertAllClose(intervals[:2], [1.0, 2.0], rtol=0.25)
        self.assertAllClose(intervals[2], 10.0, rtol=0.5)

    def test_first_sight_repeats_and_late_steps(self):
        frequency = losses.ItemInterval(num_buckets=97, decay=0.5)
        self.assertAllEqual(frequency.lookup([4, 5]), [0.0, 0.0])
        self.assertAllEqual(frequency([4, 4, 5], 9), [10.0, 10.0, 10.0])
        self.assertAllEqual(frequency([4], 9), [10.0])  # the same step again
        self.assertAllEqual(frequency([4], 8), [10.0])  # another worker is late
        self.assertAllEqual(frequency([4], 11), [6.0])  # (10 + (11 - 9)) / 2
        self.assertAllEqual(frequency.lookup([4, 5]), [6.0, 10.0])

    def test_more_hashes_undo_collisions(self):
        # Items occur every 20 steps. Two in one bucket divide its interval.
        for num_hashes, right in ((1, False), (6, True)):
            frequency = losses.ItemInterval(
                num_buckets=40, decay=1.0, num_hashes=num_hashes
            )
            for step in range(40):
                frequency([step % 20], step)
            intervals = frequency.lookup(np.arange(20)).numpy()
            self.assertAllInRange(intervals, 1.0, 20.0)
            self.assertEqual((intervals == 20.0).all(), right)

    def test_feeds_batch_softmax_loss_in_a_compiled_step(self):
        frequency = losses.ItemInterval(num_buckets=64)
        embeddings = tf.constant(np.eye(3), tf.float32)

        @tf.function(jit_compile=True)
        def step(ids, now):
            return losses.batch_softmax_loss(
                embeddings, embeddings, frequency(ids, now), normalize=False
            )

        # All three intervals are 1: three times log((e + 2) / e).
        loss = step(tf.constant([5, 6, 7]), tf.constant(0))
        self.assertAllClose(loss, 3 * np.log((np.e + 2) / np.e))

    def test_is_part_of_a_models_checkpoint_but_not_trained(self):
        class Tower(tf_keras.Model):
            def __init__(self):
                super().__init__()
                self.frequency = losses.ItemInterval(num_buckets=8)

        model = Tower()
        self.assertEmpty(model.trainable_variables)
        self.assertLen(model.variables, 2)
        model.frequency([1], 3)
        path = tf.train.Checkpoint(model=model).save(f"{self.get_temp_dir()}/tower")
        restored = Tower()
        tf.train.Checkpoint(model=restored).restore(path).assert_consumed()
        self.assertAllEqual(restored.frequency.lookup([1]), [4.0])

    def test_rejects_arguments(self):
        with self.assertRaisesRegex(ValueError, r"`num_buckets` and .* num_hashes=0"):
            losses.ItemInterval(num_buckets=8, num_hashes=0)
        with self.assertRaisesRegex(ValueError, r"`decay` must be .*: decay=0"):
            losses.ItemInterval(num_buckets=8, decay=0)
