import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_BOTH = parameterized.parameters(layers.SimpleNasLayer, layers.SimpleNasV2Layer)


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


def _most_probable(p):
    """Returns ones for the most probable choices that sum up to 0.7."""
    kept, total = np.zeros(len(p)), 0.0
    for i in np.argsort(-p):
        if total >= 0.7:
            break
        kept[i] = 1.0
        total += p[i]
    return kept


class SimpleNasLayersTest(testing.TestCase):
    @testing.golden_cases(__file__, "simple_nas")
    def test_golden(self, case):
        self._check_golden(case, layers.SimpleNasLayer)

    @testing.golden_cases(__file__, "simple_nas_v2")
    def test_golden_v2(self, case):
        self._check_golden(case, layers.SimpleNasV2Layer)

    def _check_golden(self, case, cls):
        training = case.data["call"]["training"]

        def mask(layer, x):
            return layer._mask(training)

        blocks = {
            "kept": mask,
            "probabilities": lambda layer, x: layer.probabilities()["f"],
            "sampled": lambda layer, x: [int(np.sum(mask(layer, x)))],
            "selected_dims": lambda layer, x: layer.selected_dims(),
            "selected_sizes": lambda layer, x: layer.selected_sizes(),
        }
        self.run_golden_case(case, cls, blocks=blocks)

    @parameterized.product(
        cls=[layers.SimpleNasLayer, layers.SimpleNasV2Layer], training=[True, False]
    )
    def test_matches_definition(self, cls, training):
        alphas = [self.rng.normal(size=n).astype("float32") for n in (6, 4)]
        layer = _layer(cls, *alphas, threshold=0.7, temperature=0.8)
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
            by_column = (x * upstream)[:, columns].sum(0)
            if cls is layers.SimpleNasLayer:
                kept = _most_probable(p)
                mask = kept[1:]
                by_choice = np.concatenate([[0.0], by_column]) * kept
            else:
                size = np.argmax(alpha + g if training else np.cumsum(p) >= 0.7)
                mask = np.arange(len(p) - 1) < size
                by_choice = np.concatenate([[0.0], np.cumsum(by_column)])
            self.assertAllClose(y[:, columns], x[:, columns] * mask)
            jacobian = (np.diag(p) - np.outer(p, p)) / 0.8
            self.assertAllClose(gradient, by_choice @ jacobian, rtol=1e-5)

    @_BOTH
    def test_penalty(self, cls):
        alpha = np.array([0.0, 1.0, -1.0], "float32")
        layer = _layer(cls, alpha, [0.0] * 5, size_penalty=0.5)
        layer(tf.ones([1, 6]))
        p = _softmax(alpha / 1.5)
        if cls is layers.SimpleNasLayer:  # the effective numbers of choices
            expected = np.exp(-np.sum(p * np.log(p))) + 5.0
        else:  # the expected widths
            expected = p[1] + 2 * p[2] + 2.0
        self.assertAllClose(layer.losses, [0.5 * expected])

    def test_penalty_of_certain_choices_has_a_gradient(self):
        alpha = np.array([0.0, 500.0, -500.0], "float32")
        layer = _layer(layers.SimpleNasLayer, alpha, [0.0] * 5, size_penalty=1.0)
        with tf.GradientTape() as tape:
            layer(tf.ones([1, 6]))
            loss = tf.add_n(layer.losses)
        self.assertAllClose(loss, 1.0 + 5.0)
        for gradient in tape.gradient(loss, layer.alphas):
            self.assertAllClose(gradient, np.zeros(gradient.shape), atol=1e-6)

    def test_equal_logits_keep_the_share_of_the_threshold(self):
        layer = layers.SimpleNasV2Layer(["a", "b"], [9, 19], threshold=0.9)
        layer.build([None, 28])
        self.assertEqual(layer.selected_sizes(), {"a": 8, "b": 17})

    @_BOTH
    def test_no_noise_without_use_gumbel(self, cls):
        x = tf.ones([1, 800])
        quiet = _layer(cls, *np.zeros([200, 5], "float32"), use_gumbel=False)
        self.assertAllEqual(quiet(x, training=True), quiet(x, training=False))

    @_BOTH
    def test_segments_do_not_depend_on_each_other(self, cls):
        alphas = [self.rng.normal(size=n).astype("float32") for n in (2, 7, 4)]
        together = _layer(cls, *alphas, threshold=0.6)
        sizes = list(together.selected_sizes().values())
        alone = [_layer(cls, a, threshold=0.6).selected_sizes()["f0"] for a in alphas]
        self.assertEqual(sizes, alone)

    @_BOTH
    def test_a_choice_of_nothing_drops_the_segment(self, cls):
        layer = _layer(cls, [9.0, 0.0, 0.0], [0.0, 9.0])
        self.assertEqual(layer.selected_sizes(), {"f0": 0, "f1": 1})
        self.assertAllEqual(layer(tf.ones([1, 3])), [[0.0, 0.0, 1.0]])

    @_BOTH
    def test_a_threshold_of_one_keeps_all(self, cls):
        # More columns than their rounded probabilities add up to one for.
        alpha = self.rng.normal(size=300).astype("float32")
        layer = _layer(cls, alpha, [0.0, 1.0], threshold=1.0)
        self.assertEqual(layer.selected_sizes()["f1"], 1)
        self.assertGreater(layer.selected_sizes()["f0"], 290)

    @parameterized.product(
        cls=[layers.SimpleNasLayer, layers.SimpleNasV2Layer], threshold=[0.0, 1.5]
    )
    def test_rejects_a_threshold_out_of_range(self, cls, threshold):
        message = rf"at most 1\. Received: threshold={threshold}\."
        with self.assertRaisesRegex(ValueError, message):
            cls(["a"], [2], threshold=threshold)
