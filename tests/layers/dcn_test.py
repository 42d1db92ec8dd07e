import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class DCNTest(testing.TestCase):
    @parameterized.named_parameters(
        ("vector", {"dcn_type": "vector", "layer_num": 2}, 4),
        ("matrix", {"allow_kernel_norm": True, "use_dropout": True}, 3),
        (
            "mixed",
            {
                "dcn_type": "mixed",
                "num_experts": 2,
                "low_rank": 3,
                "allow_kernel_norm": True,
            },
            2 * 8 + 1,
        ),
    )
    def test_standard_behaviour(self, config, num_weights):
        self.run_layer_test(
            layers.DCN(**config),
            input_shape=(3, 2, 4),
            output_shape=(3, 2, 4),
            num_weights=num_weights,
        )

    def test_config(self):
        self.run_config_test(
            layers.DCN,
            {
                "layer_num": 2,
                "dcn_type": "mixed",
                "initializer": tf_keras.initializers.HeNormal(seed=4),
                "regularizer": "l2",
                "num_experts": 3,
                "low_rank": 2,
                "allow_kernel_norm": True,
                "use_dropout": True,
                "keep_prob": 0.5,
                "mode": "eval",
            },
        )

    @testing.golden_cases(__file__, "dcn")
    def test_golden(self, case):
        self.run_golden_case(case, layers.DCN)

    def test_mixed_matches_definition(self):
        x0 = self.rng.normal(size=(5, 4)).astype("float32")
        layer = layers.DCN(2, "mixed", num_experts=3, low_rank=2)
        layer.build(x0.shape)
        layer.set_weights([self.rng.normal(size=w.shape) for w in layer.weights])
        kernels = [w.numpy() for w in layer.kernels]
        x = x0
        for i in range(2):
            logits, outputs = [], []
            for e in range(3):
                u, v, c, g = kernels[4 * (3 * i + e) : 4 * (3 * i + e) + 4]
                low = np.tanh(np.tanh(x @ v) @ c)
                outputs.append(x0 * (low @ u.T + layer.biases[i].numpy()))
                logits.append(x @ g)
            gate = np.exp(np.concatenate(logits, axis=1))
            gate /= gate.sum(axis=1, keepdims=True)
            x = sum(gate[:, e : e + 1] * outputs[e] for e in range(3)) + x
        self.assertAllClose(layer(x0), x, rtol=1e-5, atol=1e-5)

    def test_experts_start_different(self):
        layer = layers.DCN(
            dcn_type="mixed",
            num_experts=2,
            low_rank=3,
            initializer=tf_keras.initializers.GlorotNormal(),
        )
        layer.build([None, 4])
        for first, second in zip(layer.kernels[:4], layer.kernels[4:], strict=True):
            self.assertNotAllClose(first, second)

    def test_dropout_covers_the_residual_and_follows_mode(self):
        x = tf.ones([50, 4])
        layer = layers.DCN(use_dropout=True, keep_prob=0.5, initializer="zeros")
        self.assertAllInSet(layer(x, training=True), [0.0, 2.0])
        self.assertAllEqual(layer(x), x)
        self.assertAllEqual(layer(x, training=False), x)
        for mode in ("eval", "predict", "infer"):
            other = layers.DCN(use_dropout=True, keep_prob=0.5, mode=mode)
            self.assertAllEqual(other(x, training=True), other(x, training=False))

    def test_dropout_matches_definition(self):
        x = self.rng.normal(size=(3, 4)).astype("float32")
        draws = self.rng.uniform(size=(2, 3, 4)).astype("float32")
        layer = layers.DCN(2, "vector", use_dropout=True, keep_prob=0.8)
        layer.build(x.shape)
        given = iter(draws)
        layer._uniform = lambda shape: tf.constant(next(given))
        y = layer(x, training=True)
        expected = x
        for i in range(2):
            expected = x * (expected @ layer.kernels[i].numpy()) + expected
            expected = np.where(draws[i] >= 0.2, expected / 0.8, 0)
        self.assertAllClose(y, expected)

    @parameterized.named_parameters(
        ("type", {"dcn_type": "cube"}, r"vector, matrix, mixed.*dcn_type='cube'\."),
        ("layers", {"layer_num": 0}, r"at least 1\. Received: layer_num=0\."),
        ("experts", {"num_experts": 0}, r"at least 1\. Received: num_experts=0\."),
        ("rank", {"dcn_type": "mixed"}, r"at least 1\. Received: low_rank=0\."),
        ("keep_prob", {"keep_prob": 0.0}, r"at most 1\. Received: keep_prob=0\.0\."),
        ("mode", {"mode": "test"}, r"train, eval, predict, infer.*mode='test'\."),
    )
    def test_rejects(self, config, message):
        with self.assertRaisesRegex(ValueError, message):
            layers.DCN(**config)

    def test_rejects_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.DCN()(np.ones([2, 3], "int32"))
        with self.assertRaisesRegex(ValueError, "known size on axis -1"):
            layers.DCN().build([None, None])
