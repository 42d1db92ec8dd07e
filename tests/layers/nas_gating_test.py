import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_NAMES = ["a", "b", "c"]


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _layer(alpha=(1.0, -0.5, 0.0), **config):
    layer = layers.NASGatingLayer(_NAMES, [2, 1, 1], **config)
    layer.build([None, 4])
    layer.alpha.assign(alpha)
    return layer


class NASGatingLayerTest(testing.TestCase):
    @testing.golden_cases(__file__, "nas_gating")
    def test_golden(self, case):
        training = case.data["call"]["training"]
        blocks = {
            "gates": lambda layer, x: layer.gates(training),
            "probabilities": lambda layer, x: np.ravel(
                list(layer.probabilities().values())
            ),
            "selected_sizes": lambda layer, x: layer.selected_sizes(),
        }
        self.run_golden_case(case, layers.NASGatingLayer, blocks=blocks)

    @parameterized.product(
        ste_type=["none", "softplus", "clip"], use_logistic=[False, True]
    )
    def test_matches_definition(self, ste_type, use_logistic):
        alpha = np.array([1.5, -0.5, 0.25], "float32")
        layer = _layer(
            alpha, ste_type=ste_type, use_logistic=use_logistic, temperature=0.4
        )
        x, upstream = self.rng.normal(size=(2, 5, 4)).astype("float32")
        u = self.rng.uniform(size=3).astype("float32")
        layer._uniform = lambda shape: tf.constant(u)
        with tf.GradientTape(persistent=True) as tape:
            inputs = tf.constant(x)
            tape.watch(inputs)
            y = layer(inputs, training=True)
            total = tf.reduce_sum(y * upstream)
        s = _sigmoid(alpha)
        z = (u <= s).astype(float)
        if use_logistic:
            s = _sigmoid((np.log(u / (1 - u)) + alpha) / 0.4)
            z = (s >= 0.5).astype(float)
        softplus = np.log1p(np.exp(alpha))
        q = {
            "none": s * (1 - s) / (0.4 if use_logistic else 1.0),
            "softplus": softplus,
            "clip": np.minimum(softplus, 1.0),
        }[ste_type]
        columns = np.array([0, 0, 1, 2])
        self.assertAllClose(y, x * z[columns])
        of_columns = (upstream * x).sum(0)
        expected = q * [of_columns[:2].sum(), of_columns[2], of_columns[3]]
        self.assertAllClose(tape.gradient(total, layer.alpha), expected)
        self.assertAllClose(tape.gradient(total, inputs), upstream * z[columns])

    def test_closed_gates_give_zeros_and_learn(self):
        layer = _layer(alpha=(-9.0, -9.0, -9.0))
        with tf.GradientTape() as tape:
            y = layer(tf.ones([2, 4]), training=True)
            total = tf.reduce_sum(y)
        self.assertAllEqual(y, np.zeros([2, 4]))
        gradient = tape.gradient(total, layer.alpha)
        self.assertAllGreater(gradient, 0.0)

    def test_share_of_open_gates_is_the_probability(self):
        count = 3000
        names = [f"f{i}" for i in range(count)]
        for use_logistic in (False, True):
            layer = layers.NASGatingLayer(names, [1] * count, use_logistic=use_logistic)
            layer.build([None, count])
            tf.random.set_seed(2)
            share = np.mean(layer.gates(training=True))
            # Four deviations of the mean.
            atol = 4 * 0.5 / np.sqrt(count)
            self.assertAllClose(share, _sigmoid(1.0), atol=atol, rtol=0)

    def test_size_penalty_is_the_expected_width(self):
        layer = _layer(size_penalty=0.5)
        layer(tf.ones([1, 4]))
        p = _sigmoid(np.array([1.0, -0.5, 0.0]))
        self.assertAllClose(layer.losses, [0.5 * (2 * p[0] + p[1] + p[2])])
        self.assertEmpty(_layer().losses)

    def test_rejects_an_unknown_factor(self):
        message = r"one of softplus, clip, none\..*ste_type='hard'\."
        with self.assertRaisesRegex(ValueError, message):
            layers.NASGatingLayer(_NAMES, [2, 1, 1], ste_type="hard")
