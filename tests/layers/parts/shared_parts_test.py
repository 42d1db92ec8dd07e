"""Tests of the helpers that layers share."""

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.layers.parts import base
from monolith_tf.layers.parts import initializers
from monolith_tf.layers.parts import kernel_norm
from monolith_tf.layers.parts import masks
from monolith_tf.layers.parts import modes


class ModesTest(testing.TestCase):
    @parameterized.parameters(
        (None, None, False),
        (None, "train", False),
        (None, "predict", False),
        (True, None, True),
        (1, "train", True),
        (False, "train", False),
        (True, "infer", False),
        (True, "eval", False),
    )
    def test_is_training(self, training, mode, expected):
        self.assertIs(modes.is_training(training, mode), expected)

    def test_a_tensor_stays_one(self):
        training = modes.is_training(tf.constant(1), "train")
        self.assertEqual(training.dtype, tf.bool)
        self.assertIs(modes.is_training(tf.constant(True), "eval"), False)
        chosen = modes.choose(training, lambda: tf.constant(1), lambda: tf.constant(2))
        self.assertEqual(int(chosen), 1)
        self.assertEqual(modes.choose(False, lambda: 1, lambda: 2), 2)

    def test_what_keras_passes(self):
        seen = []

        class Spy(tf_keras.layers.Layer):
            def call(self, inputs, training=None):
                seen.append(modes.is_training(training, "train"))
                return inputs

        model = tf_keras.Sequential([Spy(), tf_keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True)
        model.build([None, 1])
        x = np.ones([2, 1], "float32")
        last = []
        for call in (
            lambda: model(x),
            lambda: model.fit(x, x, verbose=0),
            lambda: model.evaluate(x, x, verbose=0),
            lambda: model.predict(x, verbose=0),
        ):
            call()
            last.append(seen[-1])
        self.assertEqual(last, [False, True, False, False])

    def test_rejects_a_mode(self):
        with self.assertRaisesRegex(ValueError, r"train, eval, predict, infer.*'test'"):
            modes.check_mode("test")


class InitializersTest(testing.TestCase):
    def test_clones_differ_and_seeds_repeat(self):
        for initializer in (
            tf_keras.initializers.GlorotNormal(),
            tf_keras.initializers.GlorotNormal(seed=3),
        ):
            first, second = (
                initializers.clone(initializer, i)([2, 3]) for i in range(2)
            )
            self.assertNotAllClose(first, second)
        again = initializers.clone(initializer, 1)([2, 3])
        self.assertAllEqual(again, second)
        self.assertEqual(initializer.seed, 3)

    def test_defaults_and_functions(self):
        self.assertIsInstance(
            initializers.get(None, "he_normal"), tf_keras.initializers.HeNormal
        )

        def ones(shape, dtype=None):
            return tf.ones(shape, dtype)

        self.assertIs(initializers.clone(initializers.get(ones)), ones)
        self.assertIsNone(initializers.serialize(None))


class MasksTest(testing.TestCase):
    def test_dense_sequence(self):
        keys = tf.ones([1, 3, 2])
        mask = [[True, False, True]]
        kept = [[[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]]
        for given in (mask, [[1.0, 0.5, 2.0]], [[1, 0, 3]]):
            dense, found = masks.dense_sequence("keys", keys, np.array(given))
            self.assertAllEqual(dense, kept)
            self.assertAllEqual(found, mask)
        _, found = masks.dense_sequence("keys", keys, [None, np.array(mask)], 1)
        self.assertAllEqual(found, mask)
        self.assertIsNone(masks.dense_sequence("keys", keys)[1])
        self.assertIsNone(masks.dense_sequence("keys", keys, [None, None], 1)[1])

    def test_ragged_sequence(self):
        keys = tf.ragged.constant([[[1.0]], [], [[2.0], [3.0]]], inner_shape=(1,))
        dense, mask = masks.dense_sequence("keys", keys)
        self.assertAllEqual(dense[..., 0], [[1, 0], [0, 0], [2, 3]])
        self.assertAllEqual(mask, [[True, False], [False, False], [True, True]])
        self.assertEqual(dense.shape[-1], 1)

    def test_rejects_a_mask_for_a_ragged_sequence(self):
        keys = tf.ragged.constant([[[1.0]]], inner_shape=(1,))
        with self.assertRaisesRegex(ValueError, "must be None when `keys` is ragged"):
            masks.dense_sequence("keys", keys, tf.constant([[True]]))


class KernelNormTest(testing.TestCase):
    def test_normalize(self):
        kernel = tf.constant([[3.0, 0.0], [4.0, 2.0]])
        self.assertAllClose(kernel_norm.column_norms(kernel), [5.0, 2.0])
        found = kernel_norm.normalize(kernel, [10.0, 3.0])
        self.assertAllClose(found, [[6.0, 0.0], [8.0, 3.0]])

    def test_a_zero_column_stays_zero(self):
        kernel = tf.Variable([[0.0, 1e-6]])
        with tf.GradientTape() as tape:
            found = kernel_norm.normalize(kernel, [7.0, 1.0])
        self.assertAllClose(found, [[0.0, 1e-3]])
        self.assertAllClose(tape.gradient(found, kernel), [[7e3, 1e3]])


class DrawsTest(testing.TestCase):
    def test_distributions(self):
        layer = layers.Linear()
        uniform, normal, gumbel = (
            draw([40_000]).numpy()
            for draw in (layer._uniform, layer._normal, layer._gumbel)
        )
        # Means 1/2, 0 and Euler's constant; variances 1/12, 1 and pi ** 2 / 6.
        self.assertAllClose(
            [uniform.mean(), normal.mean(), gumbel.mean()],
            [0.5, 0.0, 0.5772],
            atol=0.05,
        )
        self.assertAllClose(
            [uniform.var(), normal.var(), gumbel.var()],
            [1 / 12, 1.0, np.pi**2 / 6],
            atol=0.1,
        )

    def test_extreme_uniforms_stay_finite(self):
        layer = layers.Linear()
        layer._uniform = lambda shape: tf.constant([0.0, 1.0])
        self.assertAllEqual(tf.math.is_finite(layer._gumbel([2])), [True, True])

    def test_matmul_keeps_leading_axes(self):
        x = self.rng.normal(size=(2, 3, 4, 5)).astype("float32")
        kernel = self.rng.normal(size=(5, 6)).astype("float32")
        self.assertAllClose(base.matmul(tf.constant(x), kernel), x @ kernel, rtol=1e-5)


class LayersPackageTest(testing.TestCase):
    def test_keras_layers_are_there_and_ours_replace_theirs(self):
        self.assertIs(layers.Flatten, tf_keras.layers.Flatten)
        self.assertIs(layers.multiply, tf_keras.layers.multiply)
        self.assertTrue(layers.Dense.__module__.startswith("monolith_tf."))
        self.assertTrue(layers.Dropout.__module__.startswith("monolith_tf."))
        for name in dir(tf_keras.layers):
            if not name.startswith("_"):
                self.assertTrue(hasattr(layers, name), name)
                self.assertIn(name, layers.__all__)

    def test_own_names_come_first_and_can_be_imported(self):
        names = layers.__dir__()
        own = list(layers.NAMES)
        self.assertSameElements(names[: len(own)], own)
        self.assertLen(set(names), len(names))
        for name in own:
            self.assertIsNotNone(getattr(layers, name))

    def test_a_saved_layer_is_found_by_its_module(self):
        # As in a process that has imported only tf_keras.
        config = tf_keras.utils.serialize_keras_object(layers.MLP([3, 2]))
        registered = tf_keras.utils.get_custom_objects()
        with tf_keras.utils.custom_object_scope({}):
            kept = {k: registered.pop(k) for k in list(registered) if "MLP" in k}
            try:
                layer = tf_keras.utils.deserialize_keras_object(config)
            finally:
                registered.update(kept)
        self.assertIsInstance(layer, layers.MLP)
        self.assertEqual(layer.output_dims, [3, 2])

    def test_rejects_an_unknown_name(self):
        with self.assertRaisesRegex(AttributeError, "no attribute 'Densee'"):
            _ = layers.Densee


class LayerParamsTest(testing.TestCase):
    def test_keras_layers_have_parameters_too(self):
        params = layers.params_of(tf_keras.layers.Embedding)
        params.input_dim, params.output_dim = 3, 2
        params.name = "item"
        layer = params.instantiate()
        self.assertEqual((layer.name, layer.input_dim), ("item", 3))

    def test_a_copy_is_independent(self):
        params = layers.MLP.params()
        params.output_dims = [2]
        twin = params.copy()
        twin.output_dims.append(3)
        self.assertEqual(params.output_dims, [2])
        self.assertEqual(twin.instantiate().output_dims, [2, 3])
        self.assertIsNone(params.activations)
        self.assertIn("use_bias", dir(params))

    def test_rejects(self):
        params = layers.Dense.params()
        with self.assertRaisesRegex(AttributeError, "Did you mean `units`?"):
            params.unit = 3
        with self.assertRaisesRegex(AttributeError, "`Dense` has no argument `zzz`"):
            _ = params.zzz
        with self.assertRaisesRegex(ValueError, r"`Dense` needs `units`\. Set it"):
            params.instantiate()
