import collections
from unittest import mock

import hypothesis
import numpy as np
import tensorflow as tf
from absl.testing import parameterized
from hypothesis import strategies

from monolith_tf import testing
from monolith_tf.layers import functional
from monolith_tf.layers.functional import forms


def _compiled_from(num_bytes):
    return mock.patch.dict(forms._CROSSOVERS, {("senet", "CPU"): num_bytes})


class FusedSenetTest(testing.TestCase):
    # The widths sum up to 24 bytes a row, so that batches of 4 are the first with 96.
    @parameterized.product(
        batch=[0, 1, 7], as_list=[False, True], min_bytes=[0, 96, 2**20]
    )
    def test_matches_the_plain_form(self, batch, as_list, min_bytes):
        widths = [3, 1, 2] if as_list else [2, 2, 2]
        with _compiled_from(min_bytes):
            self._compare(batch, widths, 4, as_list)

    @parameterized.parameters((3, False), (4, True))
    def test_compiles_large_inputs(self, batch, expected):
        x = tf.constant(self._normal(batch, 3, 2))
        weights = self._weights(3, 4)

        @tf.function(autograph=False)
        def call():
            return functional.senet(x, *weights, fused=True)

        with _compiled_from(96):
            library = call.get_concrete_function().graph.as_graph_def().library
        found = any(f.attr["_XlaMustCompile"].b for f in library.function)
        self.assertEqual(found, expected)

    def test_costs_small_inputs_what_the_plain_form_does(self):
        x = tf.constant(self._normal(5, 3, 2))
        weights = [tf.constant(w) for w in self._weights(3, 4)]
        plain, fused = (self._operations(x, weights, form) for form in (False, True))
        self.assertEqual(fused, plain)

    def _operations(self, x, weights, fused):
        """Counts the operations of the forward pass that compute something."""

        @tf.function(autograph=False)
        def call(x, weights):
            return functional.senet(x, *weights, fused=fused)

        graph = call.get_concrete_function(x, weights).graph.as_graph_def()
        nodes = [n for f in graph.library.function for n in f.node_def]
        passes_on = ("Placeholder", "Const", "Identity", "StopGradient", "NoOp")
        return collections.Counter(
            node.op
            for node in (*graph.node, *nodes)
            if not node.op.startswith(passes_on) and "PartitionedCall" not in node.op
        )

    @hypothesis.given(
        strategies.integers(0, 9),
        strategies.lists(strategies.integers(1, 5), min_size=1, max_size=6),
        strategies.integers(1, 4),
        strategies.booleans(),
    )
    @hypothesis.settings(deadline=None, max_examples=4)
    def test_matches_the_plain_form_for_shapes(self, batch, widths, units, as_list):
        widths = widths if as_list else widths[:1] * len(widths)
        with _compiled_from(0):
            self._compare(batch, widths, units, as_list)

    def test_gradients_match_differences(self):
        x = [self._normal(3, 2, 3), *self._weights(2, 2)]
        theory, numbers = tf.test.compute_gradient(
            lambda *args: functional.senet(*args, fused=True),
            [tf.constant(a, tf.float64) for a in x],
            delta=1e-6,
        )
        for one, two in zip(theory, numbers, strict=True):
            self.assertAllClose(one, two, rtol=1e-6, atol=1e-6)

    def test_averages_half_precision_in_float32(self):
        # The sum, 102400, is more than float16 holds. The mean is 200, the gate 1/2.
        x = tf.fill([1, 1, 512], tf.constant(200.0, tf.float16))
        zeros = [tf.zeros(shape, tf.float16) for shape in ([1, 1], [1], [1, 1], [1])]
        y = functional.senet(x, *zeros, fused=True)
        self.assertEqual(y.dtype, tf.float16)
        self.assertAllEqual(y, np.full([1, 1, 512], 100.0))

    def _compare(self, batch, widths, units, as_list):
        x = [tf.constant(self._normal(batch, width)) for width in widths]
        upstream = [tf.constant(self._normal(batch, width)) for width in widths]
        if not as_list:
            x, upstream = tf.stack(x, axis=1), tf.stack(upstream, axis=1)
        args = [x, *map(tf.constant, self._weights(len(widths), units))]
        found = []
        for fused in (True, False):
            with tf.GradientTape() as tape:
                tape.watch(args)
                y = functional.senet(*args, fused=fused)
            self.assertEqual(isinstance(y, list), as_list)
            gradients = tape.gradient(y, args, output_gradients=upstream)
            found.append(tf.nest.flatten([y, gradients]))
        for one, two in zip(*found, strict=True):
            self.assertEqual(one.shape, two.shape)
            scale = np.abs(two).max(initial=0.0)
            self.assertAllClose(one, two, rtol=1e-5, atol=1e-5 * scale)

    def _weights(self, features, units):
        shapes = [(features, units), (units,), (units, features), (features,)]
        return [self._normal(*shape) for shape in shapes]

    def _normal(self, *shape):
        return self.rng.normal(size=shape).astype("f4")
