import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf import layers
from monolith_tf import testing


class LayerNormTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.LayerNorm(),
            input_shape=(3, 2, 5),
            output_shape=(3, 2, 5),
            num_weights=2,
        )

    def test_config(self):
        self.run_config_test(
            layers.LayerNorm, {"initializer": "zeros", "regularizer": "l2"}
        )

    @testing.golden_cases(__file__, "layer_norm")
    def test_golden(self, case):
        self.run_golden_case(case, layers.LayerNorm)

    def test_matches_definition(self):
        x = self.rng.normal(size=(4, 3, 5)).astype("float32")
        gamma, beta = self.rng.normal(size=(2, 5)).astype("float32")
        layer = layers.LayerNorm()
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
        normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + 1e-6
        )
        self.assertAllClose(layer(x), normal * gamma + beta, rtol=1e-5, atol=1e-5)

    def test_large_values_in_half_precision(self):
        x = tf.constant([[60000.0, -60000.0]])
        y = layers.LayerNorm(dtype="mixed_float16")(x)
        self.assertAllClose(y, [[1.0, -1.0]])

    def test_regularizes_both_weights(self):
        layer = layers.LayerNorm("ones", tf_keras.regularizers.L1(1.0))
        layer.build([None, 3])
        layer.beta.assign([1.0, -1.0, 2.0])
        self.assertAllClose(sorted(layer.losses), [3.0, 4.0])

    def test_rejects_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.LayerNorm()(np.ones([2, 3], "int32"))
        with self.assertRaisesRegex(ValueError, "known size on axis -1"):
            layers.LayerNorm().build([None, None])
