import json
import os

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import summaries

_NAMES = ["a", "b", "c"]


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _layer(alpha=(1.0, -0.5, 0.0), **config):
    layer = layers.NASGatingLayer(_NAMES, [2, 1, 1], **config)
    layer.build([None, 4])
    layer.alpha.assign(alpha)
    return layer


class NASGatingLayerTest(testing.TestCase):
    @parameterized.parameters("none", "softplus")
    def test_standard_behaviour(self, ste_type):
        self.run_layer_test(
            layers.NASGatingLayer(_NAMES, [2, 1, 1], ste_type, size_penalty=0.5),
            input_shape=(4, 4),
            output_shape=(4, 4),
            num_weights=1,
        )

    def test_standard_behaviour_with_a_list(self):
        self.run_layer_test(
            layers.NASGatingLayer(_NAMES, [2, 1, 1], "clip", use_logistic=True),
            input_shape=[(4, 2), (4, 1), (4, 1)],
            output_shape=[(4, 2), (4, 1), (4, 1)],
            num_weights=1,
        )

    def test_config(self):
        self.run_config_test(
            layers.NASGatingLayer,
            {
                "segment_names": ["a"],
                "segment_sizes": [3],
                "ste_type": "clip",
                "use_logistic": True,
                "temperature": 0.5,
                "initializer": "zeros",
                "regularizer": "l2",
                "size_penalty": 0.25,
            },
        )

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

    def test_regularizer_sees_the_logits(self):
        layer = _layer(regularizer=tf_keras.regularizers.L2(2.0))
        self.assertAllClose(layer.losses, [2.0 * (1.0 + 0.25)])

    def test_searched_weights_are_marked(self):
        self.assertTrue(_layer().alpha.is_arch)
        layer = layers.NASGatingLayer(_NAMES, [2, 1, 1], dtype="mixed_float16")
        layer.build([None, 4])
        self.assertEqual(layer.alpha.dtype, tf.float32)

    def test_reading_off(self):
        layer = _layer()
        self.assertEqual(layer.selected_sizes(), {"a": 2, "b": 0, "c": 1})
        self.assertEqual(layer.selected_dims(), {"a": [0, 1], "b": [], "c": [0]})
        self.assertEqual(layer.summary_line(), "a: 2/2 | b: 0/1 | c: 1/1")
        path = os.path.join(self.get_temp_dir(), "selection.json")
        layer.export_selection(path)
        with open(path) as file:
            selection = json.load(file)
        self.assertEqual(selection["selected_sizes"], layer.selected_sizes())
        self.assertEqual(selection["selected_dims"], layer.selected_dims())
        self.assertAllClose(selection["probabilities"]["b"], [_sigmoid(-0.5)])

    def test_writes_summaries(self):
        folder = self.get_temp_dir()
        layer = _layer(name="gates")
        with tf.summary.create_file_writer(folder).as_default():
            layer.write_summaries(step=7)
        expected = [f"gates/{n}/probabilities" for n in _NAMES]
        expected += [f"gates/{n}/selected_size" for n in _NAMES]
        found = summaries.read(folder)
        self.assertEqual(set(found), {(tag, 7) for tag in expected})
        self.assertAllEqual(found["gates/a/selected_size", 7], 2)

    def test_slicing_by_the_selection_is_the_layer(self):
        x = self.rng.normal(size=(3, 4)).astype("float32")
        layer = _layer()
        dims, starts = layer.selected_dims(), {"a": 0, "b": 2, "c": 3}
        kept = [starts[name] + d for name in _NAMES for d in dims[name]]
        y = layer(x, training=False).numpy()
        self.assertAllEqual(y[:, kept], x[:, kept])
        self.assertAllEqual(np.delete(y, kept, axis=1), np.zeros([3, 4 - len(kept)]))

    def test_structure_of_the_output_is_that_of_the_input(self):
        x = self.rng.normal(size=(3, 4)).astype("float32")
        expected = _layer()(x, training=False)
        parts = _layer()(tf.split(x, [2, 1, 1], axis=1), training=False)
        self.assertIsInstance(parts, list)
        self.assertAllEqual(tf.concat(parts, axis=1), expected)
        (whole,) = _layer()([x], training=False)
        self.assertAllEqual(whole, expected)

    @parameterized.parameters(
        ({"segment_names": []}, r"at least one\. Received: segment_names=\[\], 3 "),
        ({"segment_names": ["a", "b"]}, r"one entry per .*=\['a', 'b'\], 3 seg"),
        ({"segment_names": ["a", "b", "a"]}, r"must be unique .*'a'\]"),
        ({"segment_names": ["a", "", "c"]}, r"non-empty strings\. Received: .*''"),
        ({"segment_names": "abc"}, r"list of non-empty strings\. Received: .*'abc'"),
        ({"segment_names": ["a", 1, "c"]}, r"non-empty strings\. Received: .*1"),
        ({"segment_sizes": [1, 0, 1]}, r"`segment_sizes` must be .*=0\."),
        ({"segment_sizes": 3}, r"`segment_sizes` must be a list.*: 3\."),
        ({"ste_type": "hard"}, r"one of softplus, clip, none\..*ste_type='hard'\."),
        ({"temperature": 0.0}, r"above 0\. Received: temperature=0\.0\."),
    )
    def test_rejects(self, wrong, message):
        with self.assertRaisesRegex(ValueError, message):
            layers.NASGatingLayer(
                **{"segment_names": _NAMES, "segment_sizes": [2, 1, 1]} | wrong
            )

    @parameterized.parameters(((2, 5),), (((2, 2), (2, 2), (2, 1)),))
    def test_rejects_other_widths(self, shapes):
        several = isinstance(shapes[0], tuple)
        inputs = [tf.ones(s) for s in shapes] if several else tf.ones(shapes)
        message = r"one tensor of width 4 or a list of .*\[2, 1, 1\].*of width \["
        with self.assertRaisesRegex(ValueError, message):
            layers.NASGatingLayer(_NAMES, [2, 1, 1])(inputs)

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.NASGatingLayer(_NAMES, [2, 1, 1])(np.ones([2, 4], "int32"))
