"""Tests of draws that depend on seed, step and layer only."""

import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import random
from monolith_tf import testing


def _draws(seed, step):
    owners = (object(), object())
    with random.step_scope(seed, tf.constant(step, tf.int64)):
        return [random.uniform(owner, [8]).numpy().tolist() for owner in owners]


class RandomTest(testing.TestCase):
    def test_same_seed_and_step_draw_the_same_in_eager_and_graph(self):
        graph = tf.function(
            lambda step: _graph_draw(3, step)  # A traced step, as in training.
        )
        with random.step_scope(3, tf.constant(5, tf.int64)):
            eager = random.uniform(self, [8])
        self.assertAllEqual(graph(tf.constant(5, tf.int64)), eager)
        self.assertNotAllEqual(graph(tf.constant(6, tf.int64)), eager)

    def test_layers_steps_seeds_and_repeats_draw_differently(self):
        owner = object()
        with random.step_scope(0, tf.constant(0, tf.int64)):
            repeats = [random.uniform(owner, [8]).numpy().tolist() for _ in range(2)]
        draws = [*_draws(1, 0), *_draws(1, 1), *_draws(2, 0), *repeats]
        self.assertLen({tuple(draw) for draw in draws}, len(draws))

    def test_normal_has_mean_zero_and_deviation_one(self):
        with random.step_scope(0, tf.constant(0, tf.int64)):
            draw = random.normal(self, [20_000])
        self.assertAllClose(tf.reduce_mean(draw), 0.0, atol=0.03)
        self.assertAllClose(tf.math.reduce_std(draw), 1.0, atol=0.03)

    def test_coarse_draws_are_uniform_multiples(self):
        with random.step_scope(0, tf.constant(0, tf.int64)):
            first, second = (random.coarse_uniform(self, [201, 99]) for _ in range(2))
        counts, _ = np.histogram(first, 20, (0.0, 1.0))
        # 995 of each are expected, with a deviation of 31.
        self.assertAllInRange(counts, 995 - 155, 995 + 155)
        self.assertAllEqual(first * 65536, np.round(first * 65536))
        correlation = np.corrcoef(np.ravel(first), np.ravel(second))[0, 1]
        self.assertAllClose(correlation, 0.0, atol=0.04)
        neighbours = np.ravel(first)
        correlation = np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1]
        self.assertAllClose(correlation, 0.0, atol=0.04)

    @parameterized.parameters(([],), ([0, 3],), ([1],), ([2, 3],))
    def test_coarse_draws_have_any_shape(self, shape):
        owner = object()

        @tf.function
        def draw(shape):
            with random.step_scope(0, tf.constant(0, tf.int64)):
                return random.coarse_uniform(owner, shape)

        self.assertEqual(draw(tf.constant(shape, tf.int32)).shape, shape)
        self.assertAllEqual(
            draw(tf.constant(shape, tf.int32)), draw(tf.constant(shape, tf.int32))
        )
        self.assertEqual(random.coarse_uniform(owner, shape).shape, shape)

    def test_outside_a_scope_draws_vary(self):
        first, second = random.uniform(self, [8]), random.uniform(self, [8])
        self.assertNotAllEqual(first, second)

    def test_a_scope_ends(self):
        with random.step_scope(0, tf.constant(0, tf.int64)):
            inside = random.uniform(self, [8])
        self.assertNotAllEqual(random.uniform(self, [8]), inside)


def _graph_draw(seed, step):
    with random.step_scope(seed, step):
        return random.uniform(object(), [8])
