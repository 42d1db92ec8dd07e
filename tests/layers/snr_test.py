import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import golden


class SNRTest(testing.TestCase):
    def _inputs(self, count=3, batch=4, dim=2):
        shape = (count, batch, dim)
        return list(self.rng.normal(size=shape).astype("float32"))

    @parameterized.parameters(("trans", 3, 2), ("aver", 2, 1))
    def test_standard_behaviour(self, snr_type, dim, num_weights):
        layer = layers.SNR(2, dim, snr_type)
        # Away from the ends of a gate, where it does not learn.
        layer._uniform = lambda shape: tf.fill(shape, 0.4)
        self.run_layer_test(
            layer,
            inputs=self._inputs(),
            output_shape=[(4, dim), (4, dim)],
            num_weights=num_weights,
        )

    def test_config(self):
        self.run_config_test(
            layers.SNR,
            {
                "num_out_subnet": 2,
                "out_subnet_dim": 3,
                "snr_type": "aver",
                "zeta": 1.25,
                "gamma": -0.5,
                "beta": 0.75,
                "use_ste": True,
                "mode": "eval",
                "initializer": "he_normal",
                "regularizer": "l2",
                "l0_weight": 0.5,
            },
        )

    @testing.golden_cases(__file__, "snr")
    def test_golden(self, case):
        training = case.data["call"]["training"]
        blocks = {"z": lambda layer, inputs: layer.gates(training)}
        self.run_golden_case(case, layers.SNR, blocks=blocks)

    @parameterized.parameters(False, True)
    def test_golden_gradient_of_a_gate(self, use_ste):
        block = golden.load(golden.find(__file__, "snr"))["z_gradient"]
        layer = layers.SNR(2, 1, "aver", use_ste=use_ste)
        layer.build([[None, 1], [None, 1]])
        layer.log_alpha.assign(block["log_alpha"])
        layer._uniform = lambda shape: tf.constant(block["uniform"])
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer.gates(training=True))
        name = "use_ste" if use_ste else "clip"
        self.assertAllClose(
            tape.gradient(total, layer.log_alpha), block[f"dz_dlog_alpha_{name}"]
        )

    def test_straight_through_keeps_gates_exact(self):
        layer = layers.SNR(2, 1, "aver", use_ste=True)
        layer.build([[None, 1], [None, 1]])
        layer.log_alpha.assign([[-9.0], [9.0], [-4.0], [4.0]])
        self.assertAllEqual(layer.gates(), [[0.0], [1.0], [0.0], [1.0]])

    def test_matches_definition(self):
        inputs = self._inputs()
        layer = layers.SNR(2, 3, zeta=1.2, gamma=-0.3, beta=0.8, l0_weight=0.25)
        layer(inputs)
        log_alpha = self.rng.normal(size=(6, 1))
        layer.log_alpha.assign(log_alpha)
        uniform = self.rng.uniform(size=(6, 1)).astype("float32")
        layer._uniform = lambda shape: tf.constant(uniform)
        for training in (True, False):
            y = layer(inputs, training=training)
            logits = log_alpha
            if training:
                logits = (np.log(uniform / (1 - uniform)) + log_alpha) / 0.8
            z = np.clip(1.5 / (1 + np.exp(-logits)) - 0.3, 0, 1)
            for j in range(2):
                expected = sum(
                    z[2 * i + j] * (x @ layer.weight[2 * i + j].numpy().reshape(2, 3))
                    for i, x in enumerate(inputs)
                )
                self.assertAllClose(y[j], expected)
            is_open = 1 / (1 + np.exp(-(log_alpha - 0.8 * np.log(0.3 / 1.2))))
            self.assertAllClose(layer.losses, [0.25 * is_open.sum()])

    def test_a_single_tensor_is_a_list_of_one(self):
        (x,) = self._inputs(count=1)
        layer = layers.SNR(2, 2, "aver")
        y = layer(x, training=False)
        self.assertAllClose(y, [x / 2, x / 2])  # sigmoid(0) * 1.2 - 0.1
        self.assertAllClose(layer([x], training=False), y)

    def test_loss_at_the_start(self):
        layer = layers.SNR(2, 2, "aver")
        layer(self._inputs(count=2))
        # 4 * sigmoid(-0.5 * log(0.1 / 1.1)) = 4 * sigmoid(log(sqrt(11)))
        self.assertAllClose(layer.losses, [4 * np.sqrt(11) / (1 + np.sqrt(11))])

    @parameterized.parameters("eval", "predict", "infer")
    def test_draws_in_training_only(self, mode):
        inputs = self._inputs()
        layer = layers.SNR(2, 2, "aver")
        expected = layer(inputs, training=False)
        self.assertAllEqual(layer(inputs, training=False), expected)
        self.assertNotAllClose(layer(inputs, training=True), expected)
        self.assertAllEqual(layer(inputs), expected)
        still = layers.SNR(2, 2, "aver", mode=mode)
        self.assertAllClose(still(inputs, training=True), expected)
        call = tf.function(lambda training: layer(inputs, training=training))
        self.assertAllClose(call(tf.constant(False)), expected)
        self.assertNotAllClose(call(tf.constant(True)), expected)

    def test_share_of_open_gates_is_the_loss(self):
        layer = layers.SNR(100, 1, "aver")
        layer.build([[None, 1]] * 20)
        layer.log_alpha.assign(np.full([2000, 1], -1.0))
        tf.random.set_seed(1)
        share = np.mean(layer.gates(training=True).numpy() > 0)
        expected = 1 / (1 + np.exp(1.0 + 0.5 * np.log(0.1 / 1.1)))
        # Four deviations of a mean of 2000 draws.
        self.assertAllClose(share, expected, atol=4 * 0.5 / np.sqrt(2000), rtol=0)

    def test_active_routes(self):
        layer = layers.SNR(2, 1, "aver")
        layer.build([[None, 1], [None, 1]])
        # A gate is closed below sigmoid(x) = 0.1 / 1.2, x = -2.398.
        layer.log_alpha.assign([[0.0], [-2.39], [-2.40], [5.0]])
        self.assertAllEqual(layer.active_routes(), [[True, True], [False, True]])

    def test_each_route_starts_in_its_own_scale(self):
        layer = layers.SNR(3, 128)
        layer.build([[None, 128]] * 4)
        routes = layer.weight.numpy()
        # Glorot's limit for 128 to 128.
        limit = np.sqrt(6 / 256)
        self.assertAllClose(np.abs(routes).max(axis=1), [limit] * 12, rtol=1e-2)
        self.assertNotAllClose(routes[0], routes[1])

    def test_regularizer_sees_the_weight(self):
        regularizer = tf_keras.regularizers.L2(0.5)
        layer = layers.SNR(2, 3, regularizer=regularizer, l0_weight=0.0)
        layer(self._inputs())
        losses = [0.0, 0.5 * np.sum(layer.weight.numpy() ** 2)]
        self.assertAllClose(sorted(layer.losses), losses)

    @parameterized.parameters(
        ({"num_out_subnet": 0}, r"`num_out_subnet` must be .*num_out_subnet=0\."),
        ({"out_subnet_dim": 0}, r"`out_subnet_dim` must be .*out_subnet_dim=0\."),
        ({"snr_type": "mean"}, r"one of trans, aver\..*snr_type='mean'\."),
        ({"zeta": 1.0}, r"`zeta` above 1\. Received: gamma=-0\.1, zeta=1\.0\."),
        ({"gamma": 0.0}, r"`gamma` must be below 0.*gamma=0\.0, zeta=1\.1\."),
        ({"beta": 0.0}, r"`beta` must be above 0\. Received: beta=0\.0\."),
        ({"l0_weight": -1.0}, r"must not be negative\. Received: l0_weight=-1\.0\."),
        ({"mode": "test"}, r"`mode` must be one of .*mode='test'\."),
    )
    def test_rejects(self, wrong, message):
        with self.assertRaisesRegex(ValueError, message):
            layers.SNR(**{"num_out_subnet": 2, "out_subnet_dim": 3} | wrong)

    def test_rejects_inputs_of_different_widths(self):
        with self.assertRaisesRegex(
            ValueError, r"of the same width.*'\(2, 3\)', '\(2, 4\)'"
        ):
            layers.SNR(2, 3)([tf.ones([2, 3]), tf.ones([2, 4])])

    def test_rejects_another_width_of_aver(self):
        with self.assertRaisesRegex(ValueError, r"out_subnet_dim=3, width=4\."):
            layers.SNR(2, 3, "aver")([tf.ones([2, 4])])

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "`inputs` must have a known size"):
            layers.SNR(2, 3).build([[None, None]])

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.SNR(2, 3)([np.ones([2, 3], "int32")])
