import numpy as np
import tensorflow as tf

from monolith_tf import layers
from monolith_tf import testing


class AutoIntTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.AutoInt(2),
            input_shape=(4, 3, 5),
            output_shape=(4, 15),
            num_weights=0,
        )

    def test_config(self):
        self.run_config_test(
            layers.AutoInt, {"layer_num": 2, "out_type": "stack", "keep_list": True}
        )

    @testing.golden_cases(__file__, "auto_int")
    def test_golden(self, case):
        self.run_golden_case(case, layers.AutoInt)

    def test_matches_definition(self):
        x = self.rng.normal(size=(5, 4, 3)).astype("float32")
        expected = x
        for _ in range(3):
            weights = np.exp(np.einsum("bik,bjk->bij", expected, expected))
            weights /= weights.sum(-1, keepdims=True)
            expected = np.einsum("bij,bjk->bik", weights, expected)
        self.assertAllClose(
            layers.AutoInt(3, out_type="stack")(x), expected, rtol=1e-5, atol=1e-5
        )

    def test_stays_finite_for_long_vectors(self):
        # Squared norms of 1e6: the softmax is one at the feature itself.
        x = np.array([[[1e3, 0.0], [0.0, 1e3]]], "float32")
        with tf.GradientTape() as tape:
            inputs = tf.constant(x)
            tape.watch(inputs)
            y = layers.AutoInt(out_type="stack")(inputs)
        self.assertAllClose(y, x)
        self.assertAllEqual(np.isfinite(tape.gradient(y, inputs)), np.ones_like(x))

    def test_rejects_no_layer(self):
        with self.assertRaisesRegex(ValueError, r"`layer_num` must be .*layer_num=0\."):
            layers.AutoInt(0)

    def test_rejects_an_unknown_output_type(self):
        with self.assertRaisesRegex(ValueError, r"`out_type` must be .*='sum'\."):
            layers.AutoInt(out_type="sum")

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.AutoInt()(np.ones([2, 4, 3], "int32"))

    def test_rejects_an_unknown_size(self):
        with self.assertRaisesRegex(ValueError, "known size on axis 2"):
            layers.AutoInt().build([None, 4, None])

    def test_rejects_another_rank(self):
        with self.assertRaisesRegex(ValueError, "expected ndim=3, found ndim=2"):
            layers.AutoInt()(np.ones([2, 4]))
