import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import random
from monolith_tf import testing


class DropoutTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.Dropout(0.4),
            input_shape=(3, 2, 4),
            output_shape=(3, 2, 4),
            num_weights=0,
        )

    def test_config(self):
        self.run_config_test(
            layers.Dropout, {"rate": 0.25, "noise_shape": [None, 1], "seed": 3}
        )

    def test_matches_definition(self):
        x = self.rng.normal(size=(4, 5)).astype("float32")
        u = self.rng.uniform(size=(4, 5)).astype("float32")
        layer = layers.Dropout(0.3)
        layer._uniform = lambda shape: tf.constant(u)
        self.assertAllClose(layer(x, training=True), np.where(u >= 0.3, x / 0.7, 0))
        self.assertAllEqual(layer(x, training=False), x)
        self.assertAllEqual(layer(x), x)

    def test_keeps_the_mean(self):
        y = layers.Dropout(0.75)(tf.ones([200, 200]), training=True)
        # 40,000 draws of 0 or 4: the mean's deviation is sqrt(3 / 40,000) = 0.0087.
        self.assertAllClose(tf.reduce_mean(y), 1.0, atol=0.05)
        self.assertAllInSet(y, [0.0, 4.0])

    def test_noise_shape_is_broadcast(self):
        layer = layers.Dropout(0.5, noise_shape=[None, 1, None])
        y = layer(tf.ones([4, 3, 16]), training=True).numpy()
        self.assertAllEqual(y, np.repeat(y[:, :1], 3, axis=1))
        self.assertLen(np.unique(y[:, 0]), 2)

    def test_training_may_be_a_tensor(self):
        layer = layers.Dropout(0.5)
        call = tf.function(lambda x, training: layer(x, training=training))
        x = tf.ones([8, 8])
        self.assertAllEqual(call(x, tf.constant(False)), x)
        self.assertLen(np.unique(call(x, tf.constant(True))), 2)

    def test_draws_depend_on_seed_and_step(self):
        layer = layers.Dropout(0.5)

        @tf.function
        def step(seed, number):
            with random.step_scope(seed, number):
                return layer(tf.ones([4, 8]), training=True)

        first = step(1, tf.constant(7))
        self.assertAllEqual(step(1, tf.constant(7)), first)
        self.assertNotAllEqual(step(1, tf.constant(8)), first)
        self.assertNotAllEqual(step(2, tf.constant(7)), first)

    @parameterized.parameters(-0.1, 1.0)
    def test_rejects_a_rate_out_of_range(self, rate):
        with self.assertRaisesRegex(ValueError, rf"below 1\. Received: rate={rate}\."):
            layers.Dropout(rate)
