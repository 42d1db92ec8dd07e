import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_BOTH = parameterized.parameters(layers.SimpleNasLayer, layers.SimpleNasV2Layer)


def _layer(cls, *alphas, **config):
    sizes = [len(alpha) - 1 for alpha in alphas]
    layer = cls([f"f{i}" for i in range(len(sizes))], sizes, **config)
    layer.build([None, sum(sizes)])
    for variable, alpha in zip(layer.alphas, alphas, strict=True):
        variable.assign(alpha)
    return layer


class ThresholdNASLayersTest(testing.TestCase):
    @_BOTH
    def test_standard_behaviour(self, cls):
        layer = cls(["a", "b"], [3, 1], size_penalty=0.1, initializer="random_normal")
        # Something is kept of each feature.
        draw = tf.constant([0.0, 1.0, 2.0, 0.0, 0.0, 2.0])
        layer._gumbel = lambda shape: draw
        self.run_layer_test(
            layer,
            input_shape=[(4, 3), (4, 1)],
            output_shape=[(4, 3), (4, 1)],
            num_weights=2,
        )

    @_BOTH
    def test_config(self, cls):
        self.run_config_test(
            cls,
            {
                "segment_names": ["a", "b"],
                "segment_sizes": [2, 5],
                "threshold": 0.75,
                "temperature": 0.5,
                "use_gumbel": False,
                "initializer": "ones",
                "regularizer": "l2",
                "size_penalty": 0.25,
            },
        )

    @_BOTH
    def test_noise_in_training_only(self, cls):
        alphas = np.zeros([200, 5], "float32")
        x = tf.ones([1, 800])
        layer = _layer(cls, *alphas)
        expected = layer(x, training=False)
        self.assertAllEqual(layer(x), expected)
        self.assertNotAllEqual(layer(x, training=True), expected)
        call = tf.function(lambda training: layer(x, training=training))
        self.assertAllEqual(call(tf.constant(False)), expected)
        self.assertNotAllEqual(call(tf.constant(True)), expected)
        quiet = _layer(cls, *alphas, use_gumbel=False)
        self.assertAllEqual(quiet(x, training=True), expected)

    @_BOTH
    def test_features_do_not_depend_on_each_other(self, cls):
        alphas = [self.rng.normal(size=n).astype("float32") for n in (2, 7, 4)]
        together = _layer(cls, *alphas, threshold=0.6)
        sizes = list(together.selected_sizes().values())
        alone = [_layer(cls, a, threshold=0.6).selected_sizes()["f0"] for a in alphas]
        self.assertEqual(sizes, alone)

    @_BOTH
    def test_names_may_hold_any_character(self, cls):
        layer = cls(["user id", "a/b:c", "\u00e4"], [1, 2, 1])
        symbol = tf_keras.Input([4])
        model = tf_keras.Model(symbol, layer(symbol))
        path = self.get_temp_dir()
        model.export(path)
        served = tf.saved_model.load(path)
        x = np.ones([2, 4], "float32")
        self.assertAllEqual(served.serve(x), layer(x))
        self.assertEqual(list(layer.selected_sizes()), ["user id", "a/b:c", "\u00e4"])

    @_BOTH
    def test_an_entry_for_nothing_drops_the_feature(self, cls):
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

    @_BOTH
    def test_slicing_by_the_selection_is_the_layer(self, cls):
        alphas = [self.rng.normal(size=n).astype("float32") for n in (5, 9)]
        layer = _layer(cls, *alphas, threshold=0.6)
        x = self.rng.normal(size=(3, 12)).astype("float32")
        dims = layer.selected_dims()
        kept = dims["f0"] + [4 + d for d in dims["f1"]]
        self.assertBetween(len(kept), 1, 11)
        y = layer(x, training=False).numpy()
        self.assertAllEqual(y[:, kept], x[:, kept])
        dropped = np.delete(y, kept, axis=1)
        self.assertAllEqual(dropped, np.zeros_like(dropped))

    @parameterized.product(
        cls=[layers.SimpleNasLayer, layers.SimpleNasV2Layer],
        wrong=[
            ({"threshold": 0.0}, r"at most 1\. Received: threshold=0\.0\."),
            ({"threshold": 1.5}, r"at most 1\. Received: threshold=1\.5\."),
            ({"temperature": 0.0}, r"above 0\. Received: temperature=0\.0\."),
            ({"segment_sizes": [0]}, r"`segment_sizes` must be .*=0\."),
            ({"segment_names": ["a", "b"]}, r"one entry per .*=\['a', 'b'\], 1 seg"),
        ],
    )
    def test_rejects(self, cls, wrong):
        with self.assertRaisesRegex(ValueError, wrong[1]):
            cls(**{"segment_names": ["a"], "segment_sizes": [2]} | wrong[0])

    @_BOTH
    def test_rejects_other_widths(self, cls):
        with self.assertRaisesRegex(ValueError, r"of width 2 or a list.*\[2\]"):
            cls(["a"], [2])(tf.ones([2, 3]))

    @_BOTH
    def test_rejects_integer_input(self, cls):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            cls(["a"], [2])(np.ones([2, 2], "int32"))
