import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class LogitCorrectionTest(testing.TestCase):
    def _inputs(self, shape=(5, 2), rate_shape=(5, 1)):
        logits = self.rng.normal(size=shape).astype("float32")
        return logits, self.rng.uniform(0.1, 1.0, size=rate_shape).astype("float32")

    @parameterized.parameters((5, 2), (5,))
    def test_standard_behaviour(self, *shape):
        logits, rate = self._inputs(shape, (5, 1))
        self.run_layer_test(
            layers.LogitCorrection(activation="tanh", sample_bias=True),
            inputs=[logits, rate],
            output_shape=shape,
            num_weights=0,
            output_dtype="float32",
        )

    def test_config(self):
        self.run_config_test(
            layers.LogitCorrection, {"activation": "sigmoid", "sample_bias": True}
        )

    @testing.golden_cases(__file__, "logit_correction")
    def test_golden(self, case):
        self.run_golden_case(case, layers.LogitCorrection)

    def test_recovers_the_odds_before_sampling(self):
        logits, rate = self._inputs()
        p = 1 / (1 + np.exp(-logits))
        # Every positive is kept and a negative with probability `rate`.
        sampled = p / (p + (1 - p) * rate)
        y = layers.LogitCorrection()([logits, rate])
        self.assertAllClose(y, np.log(sampled / (1 - sampled)))
        # Every positive comes once more as a negative.
        sampled = p / (1 + p)
        y = layers.LogitCorrection(sample_bias=True)(logits)
        self.assertAllClose(y, np.log(sampled / (1 - sampled)))

    @parameterized.parameters(((5,), (5, 1)), ((5, 1), (5,)), ((5, 2), (5,)))
    def test_aligns_ranks(self, shape, rate_shape):
        logits, rate = self._inputs(shape, rate_shape)
        y = layers.LogitCorrection()([logits, rate])
        expected = logits.reshape(5, -1) - np.log(rate.reshape(5, 1))
        self.assertAllClose(y, expected.reshape(shape))

    def test_a_list_of_logits_alone(self):
        logits, _ = self._inputs()
        self.assertAllEqual(layers.LogitCorrection()([logits]), logits)

    def test_large_logits_stay_finite(self):
        for sign in (-50.0, 50.0):
            y = layers.LogitCorrection(sample_bias=True)(tf.constant([sign]))
            self.assertAllClose(y, [min(sign, 0.0)])

    def test_small_rates_survive_mixed_precision(self):
        layer = layers.LogitCorrection(dtype="mixed_float16")
        y = layer([tf.constant([0.0]), tf.constant([1e-9])])
        self.assertAllClose(y, [9 * np.log(10.0)])

    def test_a_slope_is_built_with_the_layer(self):
        layer = layers.LogitCorrection(activation="prelu")
        layer.build([[None, 2], [None, 1]])
        self.assertEqual([w.shape for w in layer.weights], [[2]])

    @parameterized.parameters(
        (((2, 2, 2),),), (((2,), (2, 1), (2,)),), (((2, 2), (2, 1, 1)),)
    )
    def test_rejects_other_inputs(self, shapes):
        inputs = [tf.ones(shape) for shape in shapes]
        with self.assertRaisesRegex(ValueError, r"must be logits or .*shapes=\["):
            layers.LogitCorrection()(inputs)

    @parameterized.parameters(((2, 3), (2, 2)), ((2,), (2, 2)), ((2, 1), (2, 2)))
    def test_rejects_rates_that_do_not_fit(self, shape, rate_shape):
        inputs = [tf.ones(shape), tf.ones(rate_shape)]
        with self.assertRaisesRegex(ValueError, r"one column or as many.*\(2, 2\)"):
            layers.LogitCorrection()(inputs)

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"`inputs` must be floating point"):
            layers.LogitCorrection()(np.ones([2], "int32"))
