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


class SimpleNasLayerTest(testing.TestCase):
    @testing.golden_cases(__file__, "simple_nas")
    def test_golden(self, case):
        self.run_golden_case(case, layers.SimpleNasLayer, blocks=_blocks(case))

    @parameterized.parameters(True, False)
    def test_matches_definition(self, training):
        alphas = [self.rng.normal(size=n).astype("float32") for n in (6, 4)]
        layer = _layer(layers.SimpleNasLayer, *alphas, threshold=0.7, temperature=0.8)
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
            kept, total = np.zeros(len(p)), 0.0
            for i in np.argsort(-p):
                if total >= 0.7:
                    break
                kept[i] = 1.0
                total += p[i]
            self.assertAllClose(y[:, columns], x[:, columns] * kept[1:])
            by_entry = np.concatenate([[0.0], (x * upstream)[:, columns].sum(0)]) * kept
            jacobian = (np.diag(p) - np.outer(p, p)) / 0.8
            self.assertAllClose(gradient, by_entry @ jacobian, rtol=1e-5)

    def test_penalty_is_the_effective_number_of_entries(self):
        alpha = np.array([0.0, 1.0, -1.0], "float32")
        layer = _layer(layers.SimpleNasLayer, alpha, [0.0] * 5, size_penalty=0.5)
        layer(tf.ones([1, 6]))
        p = _softmax(alpha / 1.5)
        effective = np.exp(-np.sum(p * np.log(p)))
        self.assertAllClose(layer.losses, [0.5 * (effective + 5.0)])

    def test_penalty_of_certain_entries_has_a_gradient(self):
        alpha = np.array([0.0, 500.0, -500.0], "float32")
        layer = _layer(layers.SimpleNasLayer, alpha, [0.0] * 5, size_penalty=1.0)
        with tf.GradientTape() as tape:
            layer(tf.ones([1, 6]))
            loss = tf.add_n(layer.losses)
        self.assertAllClose(loss, 1.0 + 5.0)
        for gradient in tape.gradient(loss, layer.alphas):
            self.assertAllClose(gradient, np.zeros(gradient.shape), atol=1e-6)
