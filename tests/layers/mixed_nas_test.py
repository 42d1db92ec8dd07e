import dataclasses
import itertools
import warnings

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import golden

_SIZES = [[0, 1, 3], [0, 2]]


def _softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def _layer(alphas=((0.5, -0.5, 0.2), (-0.3, 0.4)), **config):
    config = {"embedding_share_mode": "left"} | config
    layer = layers.MixedNASLayer(_SIZES, ["u", "v"], **config)
    layer.build([None, sum(layer.widths)])
    for variable, alpha in zip(layer.alphas, alphas, strict=True):
        variable.assign(alpha)
    return layer


class MixedNASLayerTest(testing.TestCase):
    @testing.golden_cases(__file__, "mixed_nas")
    def test_golden(self, case):
        data = dict(case.data)
        if "gumbel" in data:  # one draw for the logits of all segments
            data["gumbel"] = list(itertools.chain(*data["gumbel"]))
        blocks = {
            "selected_sizes": lambda layer, x: layer.selected_sizes(),
            "sampled": lambda layer, x: tf.argmax(
                layer.weights_of_choices(training=True), axis=1
            ),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # sizes that start with 2
            self.run_golden_case(
                dataclasses.replace(case, data=data),
                layers.MixedNASLayer,
                blocks=blocks,
            )

    @parameterized.parameters("left", "diff", "none", "random")
    def test_golden_masks(self, share_mode):
        block = golden.load(golden.find(__file__, "mixed_nas"))["masks"]
        name = "random_seed0" if share_mode == "random" else share_mode
        with self.assertWarns(UserWarning):
            layer = layers.MixedNASLayer(
                [block["sizes"]], ["f"], embedding_share_mode=share_mode
            )
        self.assertAllEqual(layer.masks()["f"], block[name])

    def test_random_masks_are_nested_and_differ_by_segment_and_seed(self):
        sizes = [[0, 3, 7, 12]] * 2

        def masks(seed):
            return layers.MixedNASLayer(
                sizes, ["a", "b"], embedding_share_mode="random", seed=seed
            ).masks()

        first = masks(0)
        for mask in first.values():
            self.assertAllEqual(mask.sum(axis=1), [0, 3, 7, 12])
            self.assertTrue(np.all(np.diff(mask, axis=0) >= 0))
        self.assertNotAllEqual(first["a"], first["b"])
        self.assertAllEqual(masks(0)["a"], first["a"])
        self.assertAllEqual(masks(1)["a"], first["b"])

    @parameterized.product(
        grad_mode=["discrete", "gumbel", "none"],
        share_mode=["left", "diff", "none", "random"],
        training=[True, False],
    )
    def test_matches_definition(self, grad_mode, share_mode, training):
        layer = _layer(
            embedding_share_mode=share_mode,
            weight_grad_mode=grad_mode,
            temperature=0.7,
        )
        alphas = [variable.numpy() for variable in layer.alphas]
        masks = list(layer.masks().values())
        width = sum(mask.shape[1] for mask in masks)
        x, upstream = self.rng.normal(size=(2, 5, width)).astype("float32")
        noise = self.rng.gumbel(size=5).astype("float32")
        layer._gumbel = lambda shape: tf.constant(noise)
        with tf.GradientTape() as tape:
            y = layer(x, training=training)
            total = tf.reduce_sum(y * upstream)
        gradients = tape.gradient(total, layer.alphas)
        start = 0
        for alpha, mask, g, gradient in zip(
            alphas, masks, np.split(noise, [3]), gradients, strict=True
        ):
            columns = slice(start, start + mask.shape[1])
            start += mask.shape[1]
            p = _softmax(alpha / 0.7)
            w = p
            if grad_mode == "gumbel" and training:
                p = w = _softmax((alpha + g) / 0.7)
            if grad_mode == "discrete":
                chosen = np.argmax(alpha / 0.7 + g if training else alpha)
                w = np.eye(len(alpha))[chosen]
            self.assertAllClose(y[:, columns], x[:, columns] * (w @ mask))
            by_choice = mask @ (x * upstream)[:, columns].sum(0)
            if grad_mode == "discrete":
                by_choice = by_choice * w
            jacobian = (np.diag(p) - np.outer(p, p)) / 0.7
            self.assertAllClose(gradient, by_choice @ jacobian, rtol=1e-5)

    def test_draws_follow_the_probabilities(self):
        features, calls = 30, 100
        layer = layers.MixedNASLayer(
            [[0, 1, 2]] * features,
            [f"f{i}" for i in range(features)],
            embedding_share_mode="left",
            temperature=0.5,
            initializer=lambda shape, dtype=None: tf.constant([0.0, 0.5, -0.5]),
        )
        layer.build([None, 2 * features])
        tf.random.set_seed(4)
        draw = tf.function(lambda: layer.weights_of_choices(training=True))
        share = np.mean([draw() for _ in range(calls)], axis=(0, 1))
        # Four deviations of the mean.
        atol = 4 * 0.5 / np.sqrt(features * calls)
        expected = _softmax(np.array([0.0, 1.0, -1.0]))
        self.assertAllClose(share, expected, atol=atol, rtol=0)

    def test_training_may_be_a_tensor(self):
        layer = _layer()
        layer._gumbel = lambda shape: tf.constant([0.0, 0.0, 9.0, 9.0, 0.0])
        call = tf.function(lambda training: layer(tf.ones([1, 5]), training=training))
        self.assertAllEqual(call(tf.constant(True)), [[1.0, 1.0, 1.0, 0.0, 0.0]])
        self.assertAllEqual(call(tf.constant(False)), [[0.0, 0.0, 0.0, 1.0, 1.0]])

    def test_size_penalty_is_the_expected_width(self):
        layer = _layer(size_penalty=0.5, temperature=2.0)
        layer(tf.ones([1, 5]))
        u, v = _softmax(np.array([0.25, -0.25, 0.1])), _softmax(np.array([-0.15, 0.2]))
        expected = 0.5 * (u[1] + 3 * u[2] + 2 * v[1])
        self.assertAllClose(layer.losses, [expected])

    def test_size_penalty_drives_the_width_down(self):
        layer = _layer(size_penalty=1.0, alphas=((0.0, 1.0, 2.0), (0.0, 1.0)))
        optimizer = tf_keras.optimizers.SGD(1.0)
        for _ in range(60):
            with tf.GradientTape() as tape:
                layer(tf.zeros([1, 5]), training=True)
                loss = tf.add_n(layer.losses)
            gradients = tape.gradient(loss, layer.alphas)
            optimizer.apply_gradients(zip(gradients, layer.alphas, strict=True))
        self.assertEqual(layer.selected_sizes(), {"u": 0, "v": 0})

    @parameterized.parameters("left", "diff", "none", "random")
    def test_slicing_by_the_selection_is_the_layer(self, share_mode):
        alphas = ((0.0, 2.0, 1.0), (0.0, 1.0))
        layer = _layer(alphas, embedding_share_mode=share_mode, seed=1)
        width = sum(layer.widths)
        x = self.rng.normal(size=(3, width)).astype("float32")
        dims = layer.selected_dims()
        kept = dims["u"] + [layer.widths[0] + d for d in dims["v"]]
        y = layer(x, training=False).numpy()
        self.assertAllEqual(y[:, kept], x[:, kept])
        dropped = np.delete(y, kept, axis=1)
        self.assertAllEqual(dropped, np.zeros_like(dropped))

    def test_first_choice_wins_a_tie(self):
        layer = _layer(alphas=((0.0, 1.0, 1.0), (0.0, 0.0)))
        self.assertEqual(layer.selected_sizes(), {"u": 1, "v": 0})

    def test_warns_of_a_first_size_above_zero(self):
        with self.assertWarnsRegex(UserWarning, r"removes the segment.*\[\[2, 4\]\]"):
            layers.MixedNASLayer([[0, 1], [2, 4]], ["a", "b"])

    @parameterized.parameters(
        ({"segment_sizes": [[0, 1], [0]]}, r"at least two sizes.*Received: \[0\] in"),
        ({"segment_sizes": [[0, 2], [0, 2, 2]]}, r"increasing list.*: \[0, 2, 2\] in"),
        ({"segment_sizes": [[0, 2], [-1, 2]]}, r"none below 0.*: \[-1, 2\] in"),
        ({"embedding_share_mode": "right"}, r"one of left, .*mode='right'\."),
        ({"weight_grad_mode": "soft"}, r"one of discrete, .*mode='soft'\."),
        ({"seed": -1}, r"must not be negative\. Received: seed=-1\."),
    )
    def test_rejects(self, wrong, message):
        config = {"segment_sizes": [[0, 1], [0, 2]], "segment_names": ["a", "b"]}
        with self.assertRaisesRegex(ValueError, message):
            layers.MixedNASLayer(**config | wrong)
