import functools
import itertools

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.layers import functional
from monolith_tf.layers.functional import forms


def _cin_layer(X, X0, W, b, activation=None, **options):
    """Calls `cin_layer` with a kernel given as `[units, maps, fields]`."""
    kernel = tf.transpose(tf.reshape(W, [W.shape[0], -1]))
    function = activation and tf_keras.activations.get(activation)
    return functional.cin_layer(X, X0, kernel, b, function, **options)


def _cin_first_layer(X, X0, W, b, activation=None, **options):
    return _cin_layer(X0, X0, W, b, activation, **options)


def _cin_pooled_linear(X, X0, W, b, activation=None, **options):
    del activation
    kernel = tf.transpose(tf.reshape(W, [W.shape[0], -1]))
    return functional.cin_pooled_linear(X, X0, kernel, b, **options)


def _senet(X, W1, b1, W2, b2, **options):
    return functional.senet(X, W1, b1, W2, b2, **options)


_FUNCTIONS = {
    "cin_layer_tanh": _cin_layer,
    "pooled_linear": _cin_pooled_linear,
    "first_layer_symmetric": _cin_first_layer,
    "backward": _senet,
}


class FunctionalTest(testing.TestCase):
    @testing.golden_cases(__file__, "cin_fused")
    def test_golden_of_cin(self, case):
        self._check_case(case)

    @testing.golden_cases(__file__, "senet_fused")
    def test_golden_of_senet(self, case):
        self._check_case(case)

    def _check_case(self, case):
        """Compares values and, where the case has them, all gradients."""
        _, inputs = case.inputs()
        function = _FUNCTIONS[case.name]
        for fused, graph in itertools.product((False, True), (False, True)):
            call = functools.partial(function, **case.config, fused=fused)
            if graph:
                call = tf.function(call, autograph=False)
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                y = call(**inputs)
                upstream = case.data.get("upstream_gradient", np.ones(y.shape))
                total = tf.reduce_sum(y * tf.constant(upstream, tf.float32))
            self.assertAllClose(y, case.data["expected"], **case.tolerance)
            if "gradients" in case.data:
                testing.golden.compare(
                    self,
                    tape.gradient(total, inputs),
                    case.data["gradients"],
                    case.tolerance,
                )
        self.golden_passed.append(f"{case.file}/{case.name}")

    @parameterized.product(
        batch=[0, 1, 7], activation=[None, tf.nn.relu, tf.tanh], dtype=["f4", "f8"]
    )
    def test_cin_layer_matches_definition(self, batch, activation, dtype):
        x, x0, kernel, bias = self._cin_inputs(batch, dtype)
        y = functional.cin_layer(x, x0, kernel, bias, activation)
        expected = self._cin_reference(x, x0, kernel, bias)
        if activation is not None:
            expected = np.tanh(expected) if activation is tf.tanh else expected.clip(0)
        self.assertEqual(y.dtype.as_numpy_dtype, np.dtype(dtype))
        self.assertAllClose(y, expected, rtol=1e-5, atol=1e-5)

    @parameterized.parameters(0, 1, 7)
    def test_cin_pooled_linear_matches_definition(self, batch):
        inputs = self._cin_inputs(batch)
        expected = self._cin_reference(*inputs).sum(-1)
        self.assertAllClose(
            functional.cin_pooled_linear(*map(tf.constant, inputs)),
            expected,
            rtol=1e-5,
            atol=1e-5,
        )

    @parameterized.product(batch=[0, 1, 7], unequal=[False, True])
    def test_senet_matches_definition(self, batch, unequal):
        widths = [3, 1, 2] if unequal else [2, 2, 2]
        x = [self._normal(batch, k) for k in widths]
        w1, b1 = self._normal(3, 4), self._normal(4)
        w2, b2 = self._normal(4, 3), self._normal(3)
        squeezed = np.stack([one.mean(1) for one in x], 1)
        logits = np.maximum(squeezed @ w1 + b1, 0) @ w2 + b2
        gates = 1 / (1 + np.exp(-logits))
        expected = [one * gates[:, i : i + 1] for i, one in enumerate(x)]
        tensors = [tf.constant(one) for one in x]
        scaled = functional.senet(tensors, w1, b1, w2, b2)
        for one, two in zip(scaled, expected, strict=True):
            self.assertAllClose(one, two)
        if not unequal:
            stacked = functional.senet(tf.stack(tensors, 1), w1, b1, w2, b2)
            self.assertAllClose(stacked, np.stack(expected, 1))

    @parameterized.parameters("yes", 1, None)
    def test_rejects_an_unknown_form(self, fused):
        message = rf"`fused` must be 'auto', True or False\. .*fused={fused!r}\."
        with self.assertRaisesRegex(ValueError, message):
            forms.check(fused)
        x, _, kernel, bias = self._cin_inputs(2)
        with self.assertRaisesRegex(ValueError, message):
            functional.cin(x, [kernel], [bias], [], fused=fused)

    def _normal(self, *shape):
        return self.rng.normal(size=shape).astype("float32")

    def _cin_inputs(self, batch, dtype="f4"):
        """Returns 3 maps, 4 fields, of width 2, a kernel and a bias for 5 units."""
        shapes = [(batch, 3, 2), (batch, 4, 2), (12, 5), (5,)]
        return [self._normal(*shape).astype(dtype) for shape in shapes]

    def _cin_reference(self, x, x0, kernel, bias):
        kernel = kernel.reshape(3, 4, 5)
        return np.einsum("hjo,bhd,bjd->bod", kernel, x, x0) + bias[:, None]
