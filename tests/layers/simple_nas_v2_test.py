import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


def _softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def _layer(cls, *alphas, **config):
    sizes = [len(alpha) - 1 for alpha in alphas]
    layer = cls([f"f{i}" for i in range(len(sizes))], sizes, **config)
    layer.build([None, sum(sizes)])
    for variable, alpha in zip(layer.alphas, alphas, strict=True):
        variable.assign(alpha)
    return layer


def _blocks(case):
    training = case.data["call"]["training"]

    def mask(layer, x):
        return layer._masks(training)

    return {
        "kept": mask,
        "probabilities": lambda layer, x: layer.probabilities()["f"],
        "sampled": lambda layer, x: [int(np.sum(mask(layer, x)))],
        "selected_dims": lambda layer, x: layer.selected_dims(),
        "selected_sizes": lambda layer, x: layer.selected_sizes(),
    }


class SimpleNasV2LayerTest(testing.TestCase):
    @testing.golden_cases(__file__, "simple_nas_v2")
    def test_golden(self, case):
        self.run_golden_case(case, layers.SimpleNasV2Layer, blocks=_blocks(case))

    @parameterized.parameters(True, False)
    def test_matches_definition(self, training):
        alphas = [self.rng.normal(size=n).astype("float32") for n in (6, 4)]
        layer = _layer(layers.SimpleNasV2Layer, *alphas, threshold=0.7, temperature=0.8)
        noise = self.rng.gumbel(size=10).astype("float32")
        layer._gumbel = lambda shape: tf.constant(noise)
        x, upstream = self.rng.normal(size=(2, 5, 8)).astype("float32")
        with tf.GradientTape() as tape:
            y = layer(x, training=training)
            total = tf.reduce_sum(y * upstream)
        gradients = tape.gradient(total, layer.alphas)
        for alpha, g, columns, gradient in zip(
            alphas,
            np.split(noise * training, [6]),
            (slice(0, 5), slice(5, 8)),
            gradients,
            strict=True,
        ):
            p = _softmax((alpha + g) / 0.8)
            size = np.argmax(np.cumsum(p) >= 0.7)
            if training:
                size = np.argmax(alpha + g)
            kept = np.arange(len(p) - 1) < size
            self.assertAllClose(y[:, columns], x[:, columns] * kept)
            by_column = (x * upstream)[:, columns].sum(0)
            by_entry = np.concatenate([[0.0], np.cumsum(by_column)])
            jacobian = (np.diag(p) - np.outer(p, p)) / 0.8
            self.assertAllClose(gradient, by_entry @ jacobian, rtol=1e-5)

    def test_penalty_is_the_expected_width(self):
        alpha = np.array([0.0, 1.0, -1.0], "float32")
        layer = _layer(layers.SimpleNasV2Layer, alpha, [0.0] * 5, size_penalty=0.5)
        layer(tf.ones([1, 6]))
        p = _softmax(alpha / 1.5)
        self.assertAllClose(layer.losses, [0.5 * (p[1] + 2 * p[2] + 2.0)])

    def test_equal_logits_keep_the_share_of_the_threshold(self):
        layer = layers.SimpleNasV2Layer(["a", "b"], [9, 19], threshold=0.9)
        layer.build([None, 28])
        self.assertEqual(layer.selected_sizes(), {"a": 8, "b": 17})
