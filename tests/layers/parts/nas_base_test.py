"""Tests of what all layers that search for columns have in common."""

import json
import os

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import summaries

# Logits, and the columns of each segment that they select.
_LOGITS = {
    layers.MixedNASLayer: [[0.0, 2.0, 1.0], [0.0, 1.0]],
    layers.NASGatingLayer: [[-0.5, 0.0]],
    layers.SimpleNasLayer: [[-1.0, 0.0, 5.0, 0.0], [6.0, 0.0, 1.0]],
    layers.SimpleNasV2Layer: [[-1.0, 0.0, 5.0, 0.0], [6.0, 0.0, 1.0]],
}
_SELECTED = {
    layers.MixedNASLayer: {"u": [0], "v": [0, 1]},
    layers.NASGatingLayer: {"u": [], "v": [0, 1]},
    layers.SimpleNasLayer: {"u": [1], "v": []},
    layers.SimpleNasV2Layer: {"u": [0, 1], "v": []},
}
_TEMPERATURE = {
    layers.MixedNASLayer: 1.0,
    layers.SimpleNasLayer: 1.5,
    layers.SimpleNasV2Layer: 1.5,
}
_NAMES = {
    "mixed": layers.MixedNASLayer,
    "gating": layers.NASGatingLayer,
    "simple": layers.SimpleNasLayer,
    "simple_v2": layers.SimpleNasV2Layer,
}
_ALL = parameterized.named_parameters(*_NAMES.items())


def _make(cls, **config):
    """Returns a layer with the segments `u` and `v`, 3 and 2 columns wide."""
    segments = {"segment_names": ["u", "v"], "segment_sizes": [3, 2]}
    if cls is layers.MixedNASLayer:
        segments["segment_sizes"] = [[0, 1, 3], [0, 2]]
        segments["embedding_share_mode"] = "left"
    return cls(**segments | config)


def _layer(cls, **config):
    layer = _make(cls, **config)
    layer.build([None, 5])
    for variable, values in zip(layer.trainable_weights, _LOGITS[cls], strict=True):
        variable.assign(values)
    return layer


def _probabilities(cls):
    """Returns the probabilities of the choices, or of open gates."""
    if cls is layers.NASGatingLayer:
        gates = 1 / (1 + np.exp(-np.array(_LOGITS[cls][0])))
        return {"u": gates[:1], "v": gates[1:]}
    powers = [np.exp(np.array(row) / _TEMPERATURE[cls]) for row in _LOGITS[cls]]
    return {n: row / row.sum() for n, row in zip("uv", powers, strict=True)}


class NASLayersTest(testing.TestCase):
    @parameterized.named_parameters(
        ("mixed_discrete", "mixed", {"weight_grad_mode": "discrete"}),
        ("mixed_gumbel", "mixed", {"weight_grad_mode": "gumbel"}),
        ("gating", "gating", {"ste_type": "none", "size_penalty": 0.5}),
        ("gating_softplus", "gating", {"ste_type": "softplus", "size_penalty": 0.5}),
        ("gating_clip", "gating", {"ste_type": "clip", "use_logistic": True}, True),
        ("simple", "simple", {"size_penalty": 0.1}, True),
        ("simple_v2", "simple_v2", {"size_penalty": 0.1}, True),
    )
    def test_standard_behaviour(self, name, config, as_list=False):
        cls = _NAMES[name]
        gates = cls is layers.NASGatingLayer
        layer = _make(
            cls, **config | ({} if gates else {"initializer": "random_normal"})
        )
        if not gates:
            # Something is kept of each segment: a choice of nothing has no gradient.
            draws = [[0.0] * (len(logits) - 1) + [9.0] for logits in _LOGITS[cls]]
            draw = tf.constant(np.concatenate(draws), tf.float32)
            layer._gumbel = lambda shape: draw
        shape = [(4, 3), (4, 2)] if as_list else (4, 5)
        self.run_layer_test(
            layer,
            input_shape=shape,
            output_shape=shape,
            num_weights=len(_LOGITS[cls]),
        )

    @parameterized.named_parameters(
        (
            "mixed",
            "mixed",
            {
                "segment_sizes": [[0, 2], [0, 1, 4]],
                "embedding_share_mode": "random",
                "weight_grad_mode": "gumbel",
                "seed": 3,
                "initializer": "ones",
            },
        ),
        (
            "gating",
            "gating",
            {
                "segment_sizes": [3, 1],
                "ste_type": "clip",
                "use_logistic": True,
                "initializer": "zeros",
            },
        ),
        *(
            (
                name,
                name,
                {
                    "segment_sizes": [2, 5],
                    "threshold": 0.75,
                    "use_gumbel": False,
                    "initializer": "ones",
                },
            )
            for name in ("simple", "simple_v2")
        ),
    )
    def test_config(self, name, config):
        shared = {
            "segment_names": ["a", "b"],
            "temperature": 0.5,
            "regularizer": "l2",
            "size_penalty": 0.25,
        }
        self.run_config_test(_NAMES[name], shared | config)

    @_ALL
    def test_reading_off(self, cls):
        layer = _layer(cls)
        u, v = (len(dims) for dims in _SELECTED[cls].values())
        self.assertEqual(layer.selected_dims(), _SELECTED[cls])
        self.assertEqual(layer.selected_sizes(), {"u": u, "v": v})
        self.assertEqual(layer.summary_line(), f"u: {u}/3 | v: {v}/2")
        self.assertAllClose(layer.probabilities(), _probabilities(cls))
        path = os.path.join(self.get_temp_dir(), "selection.json")
        layer.export_selection(path)
        with open(path) as file:
            selection = json.load(file)
        self.assertEqual(selection["selected_sizes"], layer.selected_sizes())
        self.assertEqual(selection["selected_dims"], layer.selected_dims())
        self.assertAllClose(selection["probabilities"], _probabilities(cls))

    @_ALL
    def test_writes_summaries(self, cls):
        folder = self.get_temp_dir()
        layer = _layer(cls, name="search")
        with tf.summary.create_file_writer(folder).as_default():
            layer.write_summaries(step=7)
        expected = [f"search/{n}/probabilities" for n in "uv"]
        expected += [f"search/{n}/selected_size" for n in "uv"]
        found = summaries.read(folder)
        self.assertEqual(set(found), {(tag, 7) for tag in expected})
        for name, dims in _SELECTED[cls].items():
            self.assertAllEqual(found[f"search/{name}/selected_size", 7], len(dims))

    @_ALL
    def test_slicing_by_the_selection_is_the_layer(self, cls):
        layer = _layer(cls)
        x = self.rng.normal(size=(3, 5)).astype("float32")
        dims = layer.selected_dims()
        kept = dims["u"] + [3 + d for d in dims["v"]]
        self.assertBetween(len(kept), 1, 4)
        y = layer(x, training=False).numpy()
        self.assertAllEqual(y[:, kept], x[:, kept])
        self.assertAllEqual(np.delete(y, kept, axis=1), np.zeros([3, 5 - len(kept)]))

    @_ALL
    def test_structure_of_the_output_is_that_of_the_input(self, cls):
        x = self.rng.normal(size=(3, 5)).astype("float32")
        expected = _layer(cls)(x, training=False)
        parts = _layer(cls)(tf.split(x, [3, 2], axis=1), training=False)
        self.assertIsInstance(parts, list)
        self.assertAllEqual(tf.concat(parts, axis=1), expected)
        (whole,) = _layer(cls)([x], training=False)
        self.assertAllEqual(whole, expected)

    @_ALL
    def test_draws_in_training_only(self, cls):
        width, segments = 4, 200
        sizes = [width] * segments
        config = {"segment_names": [f"f{i}" for i in range(segments)]}
        if cls is layers.MixedNASLayer:
            sizes = [[0, 1, width]] * segments
        layer = _make(cls, **config, segment_sizes=sizes)
        x = tf.ones([1, width * segments])
        expected = layer(x, training=False)
        self.assertAllEqual(layer(x), expected)
        self.assertNotAllEqual(layer(x, training=True), expected)
        call = tf.function(lambda training: layer(x, training=training))
        self.assertAllEqual(call(tf.constant(False)), expected)
        self.assertNotAllEqual(call(tf.constant(True)), expected)

    @_ALL
    def test_names_may_hold_any_character(self, cls):
        names = ["user id, a/b:c", "\u00e4"]
        layer = _make(cls, segment_names=names, initializer="ones")
        symbol = tf_keras.Input([5])
        model = tf_keras.Model(symbol, layer(symbol))
        path = self.get_temp_dir()
        model.export(path)
        served = tf.saved_model.load(path)
        x = np.ones([2, 5], "float32")
        self.assertAllEqual(served.serve(x), layer(x))
        self.assertEqual(list(layer.selected_sizes()), names)

    @_ALL
    def test_searched_weights_are_named_and_marked(self, cls):
        layer = _layer(cls, dtype="mixed_float16")
        names = [w.name.split(":")[0] for w in layer.weights]
        by_segment = cls is not layers.NASGatingLayer
        self.assertEqual(names, ["alpha/u", "alpha/v"] if by_segment else ["alpha"])
        self.assertTrue(all(w.is_arch for w in layer.weights))
        self.assertEqual({w.dtype for w in layer.weights}, {tf.float32})

    @_ALL
    def test_losses_are_those_asked_for(self, cls):
        self.assertEmpty(_layer(cls).losses)
        layer = _layer(cls, regularizer=tf_keras.regularizers.L2(2.0))
        squares = [2.0 * np.sum(np.square(row)) for row in _LOGITS[cls]]
        self.assertAllClose(layer.losses, squares)

    @parameterized.product(
        cls=list(_NAMES.values()),
        wrong=[
            ({"segment_names": []}, r"at least one\. Received: segment_names=\[\], 2 "),
            ({"segment_names": ["a"]}, r"one entry per .*=\['a'\], 2 seg"),
            ({"segment_names": ["a", "a"]}, r"must be unique .*'a'\]"),
            ({"segment_names": ["a", ""]}, r"non-empty strings\. Received: .*''"),
            ({"segment_names": "ab"}, r"list of non-empty strings\. Received: .*'ab'"),
            ({"segment_names": ["a", 1]}, r"non-empty strings\. Received: .*1"),
            ({"temperature": 0.0}, r"above 0\. Received: temperature=0\.0\."),
            ({"temperature": -1.0}, r"above 0\. Received: temperature=-1\.0\."),
        ],
    )
    def test_rejects(self, cls, wrong):
        with self.assertRaisesRegex(ValueError, wrong[1]):
            _make(cls, **wrong[0])

    @parameterized.product(
        cls=[cls for cls in _NAMES.values() if cls is not layers.MixedNASLayer],
        wrong=[
            ([1, 0], r"`segment_sizes` must be .*=0\."),
            (3, r"`segment_sizes` must be a list.*: 3\."),
        ],
    )
    def test_rejects_sizes(self, cls, wrong):
        with self.assertRaisesRegex(ValueError, wrong[1]):
            _make(cls, segment_sizes=wrong[0])

    @parameterized.product(
        cls=list(_NAMES.values()), shapes=[(2, 6), ((2, 3), (2, 3), (2, 1))]
    )
    def test_rejects_other_widths(self, cls, shapes):
        several = isinstance(shapes[0], tuple)
        inputs = [tf.ones(s) for s in shapes] if several else tf.ones(shapes)
        message = r"one tensor of width 5 or a list of .*\[3, 2\].*of width \["
        with self.assertRaisesRegex(ValueError, message):
            _make(cls)(inputs)

    @_ALL
    def test_rejects_integer_input(self, cls):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            _make(cls)(np.ones([2, 5], "int32"))
