import math
import re

import hypothesis
import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized
from hypothesis import strategies

from monolith_tf import testing
from monolith_tf.layers import functional
from monolith_tf.layers.functional import compiled
from monolith_tf.layers.functional import fused_cin


def _centre(x):
    """An activation that looks at the whole batch."""
    return tf.nn.relu(x) - tf.reduce_mean(x, axis=0)


class FusedCinTest(testing.TestCase):
    @parameterized.parameters(None, tf.nn.relu, tf.tanh)
    def test_matches_the_plain_form(self, activation):
        for batch in (0, 1, 7):
            self._compare(batch, 5, 3, [4, 6, 2], activation)

    @parameterized.named_parameters(
        ("one_layer", [3], None),
        ("softmax", [4, 2], tf.nn.softmax),
        ("of_the_batch", [4, 3, 2], _centre),
        ("leaky", [4, 2], tf_keras.layers.LeakyReLU(0.7)),
    )
    def test_matches_the_plain_form_for_any(self, units, activation):
        self._compare(5, 4, 2, units, activation)

    @hypothesis.given(
        strategies.integers(0, 9),
        strategies.integers(1, 8),
        strategies.integers(1, 5),
        strategies.lists(strategies.integers(1, 9), min_size=1, max_size=3),
        strategies.sampled_from([None, tf.nn.relu, tf.nn.gelu]),
    )
    @hypothesis.settings(deadline=None, max_examples=4)
    def test_matches_the_plain_form_for_shapes(
        self, batch, fields, dim, units, activation
    ):
        self._compare(batch, fields, dim, units, activation)

    def test_matches_the_plain_form_over_several_blocks(self):
        # 700 rows are three blocks of at most 256, filled up to 768.
        self._compare(700, 3, 2, [4, 5, 2], tf.nn.relu)

    def test_learned_activations_have_gradients(self):
        slopes = [tf_keras.layers.PReLU() for _ in range(2)]
        args = self._draw(5, 4, 3, [3, 3, 2])
        found = []
        for fused in (True, False):
            with tf.GradientTape() as tape:
                y = functional.cin(*args, slopes, fused=fused)
            weights = [slope.trainable_weights for slope in slopes]
            found.append([y, *tf.nest.flatten(tape.gradient(y, weights))])
        self._assert_close(*found)

    @parameterized.parameters(True, False)
    def test_layer_matches_the_plain_form(self, is_first):
        x0, x = self._normal(7, 4, 3), self._normal(7, 5, 3)
        x = x0 if is_first else x
        args = [x, x0, self._normal(x.shape[1] * 4, 6), self._normal(6)]
        args = [tf.constant(a) for a in args]
        if is_first:
            args[0] = args[1]
        upstream = tf.constant(self._normal(7, 6, 3))
        found = []
        for fused in (True, False):
            with tf.GradientTape() as tape:
                tape.watch(args)
                y = functional.cin_layer(*args, tf.nn.softmax, fused=fused)
            gradients = tape.gradient(y, args[1:], output_gradients=upstream)
            found.append([y, *gradients])
        self._assert_close(*found)

    def test_gradients_match_differences(self):
        args = [self._draw(3, 3, 2, [2, 3, 2], dtype="f8")]
        flat = tf.nest.flatten(args)

        def function(*tensors):
            nest = tf.nest.pack_sequence_as(args, tensors)[0]
            return functional.cin(*nest, [tf.tanh] * 2, fused=True)

        theory, numbers = tf.test.compute_gradient(function, flat, delta=1e-6)
        for one, two in zip(theory, numbers, strict=True):
            self.assertAllClose(one, two, rtol=1e-6, atol=1e-6)

    @parameterized.parameters("float16", "bfloat16")
    def test_computes_half_precision_in_float32(self, dtype):
        half = tf.nest.map_structure(
            lambda t: tf.cast(t, dtype), self._draw(9, 5, 4, [4, 3, 2])
        )
        full = tf.nest.map_structure(lambda t: tf.cast(t, "float32"), half)
        results = []
        for args in (half, full):
            with tf.GradientTape() as tape:
                tape.watch(args)
                y = functional.cin(*args, [tf.tanh] * 2, fused=True)
            results.append(tf.nest.flatten([y, tape.gradient(y, args)]))
        for narrow, wide in zip(*results, strict=True):
            self.assertEqual(narrow.dtype, dtype)
            self.assertAllClose(narrow, tf.cast(wide, dtype), rtol=2e-3, atol=1e-6)

    def test_holds_no_product_of_all_maps_and_fields(self):
        batch, fields, dim, units = 2048, 8, 4, [16, 16, 2]
        args = self._draw(batch, fields, dim, units)
        largest = batch * units[0] * fields * dim

        def training(fused):
            def function(*args):
                with tf.GradientTape() as tape:
                    tape.watch(args)
                    y = functional.cin(*args, [tf.nn.relu] * 2, fused=fused)
                return y, tape.gradient(y, args)

            return tf.function(function, autograph=False, jit_compile=True)

        def largest_array(function):
            text = function.experimental_get_compiler_ir(*args)(stage="optimized_hlo")
            shapes = re.findall(r"\b[fs]\d+\[([\d,]+)\]", text)
            return max(math.prod(map(int, shape.split(","))) for shape in shapes)

        self.assertEqual(largest_array(training(fused=False)), largest)
        # The products of 256 of 2048 rows are smaller than the last layer's Gram
        # matrices, [batch, maps, fields].
        self.assertLessEqual(
            largest_array(training(fused=True)), batch * units[1] * fields
        )

    def test_blocks_bound_the_memory(self):
        # 26 fields, 128 maps and width 16: 212992 bytes of products a row
        network = fused_cin._Network(26, 16, (128, 128, 128), ("", ""))
        self.assertEqual(network.block_rows, 64)
        self.assertLessEqual(64 * 212992, fused_cin._BLOCK_BYTES)
        self.assertEqual(fused_cin._Layer(1024, 100, 64).block_rows, 1)
        self.assertEqual(compiled.padded_size(4096, network.block_rows), 4096)

    def _compare(self, batch, fields, dim, units, activation):
        args = self._draw(batch, fields, dim, units)
        activations = [activation] * (len(units) - 1)
        upstream = self._normal(batch, sum(units))
        found = []
        for fused in (True, False):
            with tf.GradientTape() as tape:
                tape.watch(args)
                y = functional.cin(*args, activations, fused=fused)
            gradients = tape.gradient(y, args, output_gradients=tf.constant(upstream))
            found.append(tf.nest.flatten([y, gradients]))
        self._assert_close(*found)

    def _assert_close(self, found, expected):
        """Compares to 1e-5 of the largest magnitude."""
        for one, two in zip(found, expected, strict=True):
            self.assertEqual(one.shape, two.shape)
            scale = np.abs(two).max(initial=0.0)
            self.assertAllClose(one, two, rtol=0, atol=1e-5 * scale)

    def _draw(self, batch, fields, dim, units, dtype="f4"):
        """Returns an input, kernels and biases."""
        maps = [fields, *units[:-1]]
        kernels = [(h * fields, o) for h, o in zip(maps, units, strict=True)]
        shapes = [(batch, fields, dim), kernels, [(o,) for o in units]]
        return testing.nests.map_shapes(
            lambda shape: tf.constant(self._normal(*shape).astype(dtype)), shapes
        )

    def _normal(self, *shape):
        return self.rng.normal(size=shape).astype("f4")
