import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class BatchNormTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.BatchNorm(mode="train"),
            input_shape=(6, 2, 3),
            output_shape=(6, 2, 3),
            num_weights=4,
        )

    def test_config(self):
        self.run_config_test(
            layers.BatchNorm,
            {
                "momentum": 0.5,
                "center": False,
                "scale": False,
                "moving_mean_initializer": "ones",
                "moving_variance_initializer": "zeros",
                "beta_initializer": "ones",
                "gamma_initializer": "zeros",
                "regularizer": "l2",
                "training_use_global_dist": True,
                "global_dist_momentum": 0.5,
                "stop_grad_of_var_mean": True,
                "epsilon": 0.25,
                "mode": "eval",
            },
        )

    @testing.golden_cases(__file__, "batch_norm")
    def test_golden(self, case):
        self.run_golden_case(case, layers.BatchNorm)

    @parameterized.named_parameters(("batch", False, 0.0), ("mix", True, 0.25))
    def test_matches_definition(self, use_global, share):
        x = 3 + 2 * self.rng.normal(size=(5, 4, 3)).astype("float32")
        layer = layers.BatchNorm(
            momentum=0.75,
            training_use_global_dist=use_global,
            global_dist_momentum=0.25,
            epsilon=1e-3,
        )
        layer.build(x.shape)
        gamma, beta = self.rng.normal(size=(2, 3)).astype("float32")
        start_m = np.array([1.0, 2.0, 3.0])
        start_v = np.array([0.5, 1.0, 2.0])
        layer.set_weights([gamma, beta, start_m, start_v])
        y = layer(x, training=True)
        batch_m, batch_v = x.mean((0, 1)), x.var((0, 1))
        m = share * start_m + (1 - share) * batch_m
        v = share * start_v + (1 - share) * batch_v
        self.assertAllClose(y, (x - m) / np.sqrt(v + 1e-3) * gamma + beta, atol=1e-5)
        moved_m = 0.75 * start_m + 0.25 * batch_m
        moved_v = 0.75 * start_v + 0.25 * batch_v
        self.assertAllClose(layer.moving_mean, moved_m)
        self.assertAllClose(layer.moving_variance, moved_v)
        expected = (x - moved_m) / np.sqrt(moved_v + 1e-3) * gamma + beta
        self.assertAllClose(layer(x, training=False), expected, atol=1e-5)
        self.assertAllClose(layer.moving_mean, moved_m)

    def test_stopped_statistics_are_constants(self):
        x = tf.constant(self.rng.normal(size=(4, 2)), tf.float32)
        layer = layers.BatchNorm(stop_grad_of_var_mean=True)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x, training=True))
        expected = 1 / np.sqrt(np.var(x.numpy(), axis=0) + 1e-6)
        self.assertAllClose(tape.gradient(total, x), np.tile(expected, [4, 1]))

    def test_training_may_be_a_tensor(self):
        x = tf.constant(self.rng.normal(size=(8, 2)), tf.float32)
        layer = layers.BatchNorm(momentum=0.0)
        call = tf.function(lambda x, training: layer(x, training=training))
        self.assertAllClose(call(x, tf.constant(False)), x, rtol=1e-5)
        self.assertAllEqual(layer.moving_mean, [0.0, 0.0])
        call(x, tf.constant(True))
        self.assertAllClose(layer.moving_mean, np.mean(x.numpy(), axis=0))

    def test_mode_and_global_statistics_can_be_set(self):
        x = tf.constant([[1.0], [3.0]])
        layer = layers.BatchNorm(epsilon=1e-6, momentum=1.0)
        self.assertAllClose(layer(x, training=True), [[-1.0], [1.0]])
        layer.set_use_global_dist(True)
        self.assertAllClose(layer(x, training=True), x)
        for mode in ("eval", "predict", "infer"):
            other = layers.BatchNorm(epsilon=1e-6, mode=mode)
            self.assertAllClose(other(x, training=True), x)

    def test_negative_variance_counts_as_zero(self):
        layer = layers.BatchNorm(epsilon=0.25, moving_variance_initializer="zeros")
        layer.build([None, 1])
        layer.moving_variance.assign([-1.0])
        self.assertAllClose(layer(tf.ones([1, 1]), training=False), [[2.0]])

    def test_regularizes_both_weights(self):
        layer = layers.BatchNorm(regularizer=tf_keras.regularizers.L1(1.0))
        layer.build([None, 3])
        layer.beta.assign([1.0, -1.0, 2.0])
        self.assertAllClose(sorted(layer.losses), [3.0, 4.0])

    @parameterized.named_parameters(
        ("momentum", {"momentum": 1.5}, r"from 0 to 1\. Received: momentum=1\.5\."),
        (
            "share",
            {"global_dist_momentum": -1.0},
            r"from 0 to 1\. Received: global_dist_momentum=-1\.0\.",
        ),
        ("epsilon", {"epsilon": 0.0}, r"above 0\. Received: epsilon=0\.0\."),
        ("mode", {"mode": "test"}, r"train, eval, predict, infer.*mode='test'\."),
    )
    def test_rejects(self, config, message):
        with self.assertRaisesRegex(ValueError, message):
            layers.BatchNorm(**config)

    def test_rejects_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.BatchNorm()(np.ones([2, 3], "int32"))
        with self.assertRaisesRegex(ValueError, "known size on axis -1"):
            layers.BatchNorm().build([None, None])
